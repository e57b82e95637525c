"""Traces, by OpenTelemetry's API alone. Without its SDK the spans go nowhere.

A job's row keeps the trace in which it was submitted, and each of its tries continues that trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

FIELDS = "traceparent", "tracestate"
OPERATIONS = {SpanKind.PRODUCER: ("submit", "send"), SpanKind.CONSUMER: ("run", "process")}
FLUSH = 2000  # milliseconds

_tracer = trace.get_tracer("app.jobs")
_propagator = TraceContextTextMapPropagator()


def here() -> dict[str, str]:
    """The current span as W3C's headers. It is empty outside of traces."""
    headers: dict[str, str] = {}
    _propagator.inject(headers)
    return headers


def trace_id() -> str | None:
    found = trace.get_current_span().get_span_context()
    return trace.format_trace_id(found.trace_id) if found.is_valid else None


def ticking(schedule: str) -> AbstractContextManager[Span]:
    """Begin a trace of its own for the job that a tick submits."""
    return _span(f"tick {schedule}", Context())


def submitting(task: str, queue: str, **told: Any) -> AbstractContextManager[Span]:
    return _span(f"submit {task}", None, SpanKind.PRODUCER, **_names(task, queue), **told)


def running(
    task: str, queue: str, origin: Mapping[str, Any], **told: Any
) -> AbstractContextManager[Span]:
    """A try, in the trace of what submitted its job."""
    kept = {name: str(origin[name]) for name in FIELDS if name in origin}
    trace_of_it = _propagator.extract(kept, Context()) if kept else Context()
    return _span(f"run {task}", trace_of_it, SpanKind.CONSUMER, **_names(task, queue), **told)


def _names(task: str, queue: str) -> dict[str, str]:
    return {"messaging.destination.name": queue, "job.task": task}


def _span(
    name: str, parent: Context | None, kind: SpanKind = SpanKind.INTERNAL, **told: Any
) -> AbstractContextManager[Span]:
    """A span by OpenTelemetry's conventions for messages. It is cheap without the SDK."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return nullcontext(trace.INVALID_SPAN)
    if kind in OPERATIONS:
        operation, sort = OPERATIONS[kind]
        told |= {"messaging.system": "jobs", "messaging.operation.name": operation}
        told |= {"messaging.operation.type": sort}
    return _tracer.start_as_current_span(name, parent, kind=kind, attributes=told)


def tell_error(span: Span, error: Exception) -> None:
    span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))


def flush_spans() -> None:
    """Send the spans that have ended, within seconds. The API has no function for it."""
    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush:
        flush(FLUSH)
