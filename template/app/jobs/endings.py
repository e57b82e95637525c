"""Reports how tries end. Each end is reported once it is written: in the log, and to listeners."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

import structlog
from opentelemetry.trace import Span
from pydantic import JsonValue

from app.core import tracing

log = structlog.get_logger(__name__)


class Ending(StrEnum):
    """The names are in logs and metrics: a release may add one, but changes none."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the job is tried again
    DEAD = "dead"
    REFUSED = "refused"  # it waits for a release that takes its arguments
    HANDED_BACK = "handed_back"  # the process stops, or has no database; the try isn't counted
    CANCELLED = "cancelled"  # by an operator, while it ran
    LOST = "lost"  # the lease was lost: another host has the job
    TAKEN_BACK = "taken_back"  # from a host that was silent for a lease


LEVELS = {Ending.FAILED: logging.WARNING, Ending.DEAD: logging.ERROR, Ending.LOST: logging.WARNING}
LEVELS |= {Ending.TAKEN_BACK: logging.WARNING}

# What submitted a job: the request, the schedule, the other job, and its trace.
Origin = Mapping[str, JsonValue]
NAMED = "request_id", "schedule_id"  # keys of a job's origin, and of the log's context


@dataclass(frozen=True, slots=True)
class Ended:
    """A try that has ended, or a job that became dead outside a try.

    Both in seconds: it `waited` from when it was due to its start, and `took` from then on.
    """

    id: UUID
    task: str
    queue: str
    ending: Ending
    attempt: int
    waited: float | None = None
    took: float | None = None
    error: str | None = None
    cause: Exception | None = None
    origin: Origin = field(default_factory=dict)
    span: Span | None = None  # of the try


def origin_of(row: Any) -> Origin:
    """What submitted a row's job. It is empty if somebody broke the value by hand."""
    return row.origin if isinstance(row.origin, dict) else {}


def named(origin: Origin) -> dict[str, str]:
    """The part of a job's origin that each line of the log about the job has."""
    return {name: told for name in NAMED if isinstance(told := origin.get(name), str)}


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


Listener = Callable[[Ended], None]

_listeners: list[Listener] = []


def at_each_end(listener: Listener) -> Listener:
    """Decorator: the function is called at each end that this process writes. It mustn't raise."""
    _listeners.append(listener)
    return listener


def tell_end(ended: Ended) -> None:
    """Log the end in one line, and call the listeners, in the trace of the job."""
    shown = {
        "job_id": str(ended.id),
        "task": ended.task,
        "queue": ended.queue,
        "attempt": ended.attempt,
        "waited_ms": _milliseconds(ended.waited),
        "took_ms": _milliseconds(ended.took),
        "error": ended.error,
        "exc_info": ended.cause,
        **named(ended.origin),
    }
    known = {name: value for name, value in shown.items() if value is not None}
    level = LEVELS.get(ended.ending, logging.INFO)
    with tracing.within(ended.span or tracing.submitted_in(ended.origin)):
        log.log(level, f"job.{ended.ending}", outcome=ended.ending.value, **known)
        for listener in _listeners:
            listener(ended)
