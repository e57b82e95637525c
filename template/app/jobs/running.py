"""A try while it runs, and what its task may know of it."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from app.jobs.contract import Task, find_task
from app.jobs.endings import Ended, Ending
from app.jobs.looks import Taken


class LeaseLostError(RuntimeError):
    """The job is no longer this worker's: nothing that this try did may be committed."""


@dataclass(eq=False)
class Claim:
    """One try of one job; `attempt` fences its outcome."""

    id: UUID
    task: Task[..., Any, Any]
    args: dict[str, Any]
    attempt: int
    max_attempts: int
    origin: dict[str, Any] = field(default_factory=dict)  # what submitted it
    queue: str = ""
    waited: float | None = None
    lost: bool = False
    fenced: bool = False  # from here on the fence decides
    began: float = field(default_factory=time.monotonic, repr=False)
    ended: Ended | None = field(default=None, repr=False)
    running: asyncio.Task[Any] | None = field(default=None, repr=False)
    driver: Any = field(default=None, repr=False)  # the driver's connection of its last session

    def end(self, ending: Ending, error: str | None = None, cause: Exception | None = None) -> None:
        """Note what this try came to; it is told once that is written."""
        took = time.monotonic() - self.began
        known = self.id, self.task.name, self.queue, ending, self.attempt, self.waited
        self.ended = Ended(*known, took, error, cause, self.origin)


def claim_of(taken: Taken) -> Claim:
    """The try that begins now."""
    task, fences = find_task(taken.task), (taken.attempt, taken.max_attempts)
    return Claim(taken.id, task, taken.args, *fences, taken.origin, taken.queue, taken.waited)


running_job: ContextVar[Claim] = ContextVar("running_job")


@dataclass(frozen=True)
class CurrentJob:
    """What a task may know of its own job; the first `attempt` is 1."""

    id: UUID
    task: str
    attempt: int
    max_attempts: int


def current_job() -> CurrentJob:
    """The job that the calling task runs for. Raises LookupError outside one."""
    claim = running_job.get()
    return CurrentJob(claim.id, claim.task.name, claim.attempt, claim.max_attempts)
