"""Traces, by OpenTelemetry's API alone. Without its SDK the spans go nowhere.

A job's row keeps the trace in which it was submitted, and each of its tries continues that trace,
after a span of its wait.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
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


def ids() -> dict[str, str]:
    """The ids of the current span, for a line of the log. It is empty outside of traces."""
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return {}
    trace_id, span_id = trace.format_trace_id(found.trace_id), trace.format_span_id(found.span_id)
    return {"trace_id": trace_id, "span_id": span_id}


def within(span: Span) -> AbstractContextManager[Any]:
    """Lines that are logged in this context name this span, which may have ended."""
    if span is trace.INVALID_SPAN:
        return nullcontext()
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)


def ticking(schedule: str) -> AbstractContextManager[Span]:
    """Begin a new trace for the job that a tick submits."""
    return _span(f"tick {schedule}", Context())


def submitting(task: str, queue: str, **told: Any) -> AbstractContextManager[Span]:
    return _span(f"submit {task}", None, SpanKind.PRODUCER, **_names(task, queue), **told)


def running(
    task: str, queue: str, origin: Mapping[str, Any], waited: float | None, **told: Any
) -> AbstractContextManager[Span]:
    """The span of a try, in the trace of its job, which was due for `waited` seconds."""
    if _is_off():
        return nullcontext(trace.INVALID_SPAN)
    parent, told = _context_of(origin), _names(task, queue) | told
    if waited is not None:
        told |= {"job.waited_ms": round(waited * 1000)}
        # Without a parent the wait would be a trace of its own.
        if trace.get_current_span(parent) is not trace.INVALID_SPAN:
            _waited(task, parent, waited, told)
    return _span(f"run {task}", parent, SpanKind.CONSUMER, **told)


def submitted_in(origin: Mapping[str, Any]) -> Span:
    """The span in which a job was submitted. Without one it is invalid."""
    return trace.get_current_span(_context_of(origin))


def _context_of(origin: Mapping[str, Any]) -> Context:
    kept = {name: str(origin[name]) for name in FIELDS if name in origin}
    return _propagator.extract(kept, Context()) if kept else Context()


def _waited(task: str, parent: Context, seconds: float, told: dict[str, Any]) -> None:
    """Record the wait as a span that ends now."""
    now = time.time_ns()
    began = now - int(max(0.0, seconds) * 1e9)
    _tracer.start_span(f"wait {task}", parent, attributes=told, start_time=began).end(now)


def _names(task: str, queue: str) -> dict[str, str]:
    return {"messaging.destination.name": queue, "job.task": task}


def _span(
    name: str, parent: Context | None, kind: SpanKind = SpanKind.INTERNAL, **told: Any
) -> AbstractContextManager[Span]:
    """A span by OpenTelemetry's conventions for messages. It is cheap without the SDK."""
    if _is_off():
        return nullcontext(trace.INVALID_SPAN)
    if kind in OPERATIONS:
        operation, sort = OPERATIONS[kind]
        told |= {"messaging.system": "jobs", "messaging.operation.name": operation}
        told |= {"messaging.operation.type": sort}
    return _tracer.start_as_current_span(name, parent, kind=kind, attributes=told)


def _is_off() -> bool:
    return isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def tell_error(span: Span, error: Exception) -> None:
    with suppress(Exception):  # of an error that can't say what it is
        span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))


def flush_spans() -> None:
    """Send the spans that have ended, within seconds. The API has no function for it."""
    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush:
        flush(FLUSH)
