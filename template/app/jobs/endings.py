"""What tries come to. Each end is told once, when it is written: in the log, and to who listens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import structlog

log = structlog.get_logger(__name__)


class Ending(StrEnum):
    """The names are in logs and metrics: a release may add one, but changes none."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # it is tried again
    DEAD = "dead"
    REFUSED = "refused"  # it waits for a release that takes its arguments
    HANDED_BACK = "handed_back"  # the process stops, or has no database; the try isn't counted
    LOST = "lost"  # its lease: another host has it, or an operator has cancelled it
    TAKEN_BACK = "taken_back"  # from a host that was silent


LEVELS = {Ending.FAILED: logging.WARNING, Ending.DEAD: logging.ERROR, Ending.LOST: logging.WARNING}
LEVELS |= {Ending.TAKEN_BACK: logging.WARNING}


@dataclass(frozen=True, slots=True)
class Ended:
    """A try that has ended, or a job that is dead without one.

    It `waited` from when it was due to its start, and `took` from there to its end, in seconds.
    """

    id: UUID
    task: str
    ending: Ending
    attempt: int | None = None
    queue: str | None = None
    waited: float | None = None
    took: float | None = None
    error: str | None = None
    cause: Exception | None = None


Listener = Callable[[Ended], None]

_listeners: list[Listener] = []


def at_each_end(listener: Listener) -> Listener:
    """A decorator: the function hears of each end that this process writes; it mustn't raise."""
    _listeners.append(listener)
    return listener


def tell_end(ended: Ended) -> None:
    """Say it in one line, and to who listens."""
    shown = {
        "job_id": str(ended.id),
        "task": ended.task,
        "queue": ended.queue,
        "attempt": ended.attempt,
        "waited_ms": None if ended.waited is None else round(ended.waited * 1000),
        "took_ms": None if ended.took is None else round(ended.took * 1000),
        "error": ended.error,
        "exc_info": ended.cause,
    }
    known = {name: value for name, value in shown.items() if value is not None}
    level = LEVELS.get(ended.ending, logging.INFO)
    log.log(level, f"job.{ended.ending}", outcome=ended.ending.value, **known)
    for listener in _listeners:
        listener(ended)
