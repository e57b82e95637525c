"""A try of a job, and what it can come to: one statement each, written behind the fence."""

from __future__ import annotations

import asyncio
import random
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic_core import PydanticSerializationError, to_jsonable_python
from sqlalchemy import Integer, Update, Uuid, bindparam

from app.jobs import table
from app.jobs.contract import NonRetryable, RetryLater, Task
from app.jobs.table import Status, clock, jobs

MAX_BACKOFF = timedelta(hours=1)


class LeaseLostError(RuntimeError):
    """The job is no longer this worker's: nothing that this try did may be committed."""


class SuspectError(RuntimeError):
    """The job has crashed so often that it may run only where no other suspect does."""


@dataclass(eq=False)
class Claim:
    """One try of one job; `attempt` fences its outcome."""

    id: UUID
    task: Task[..., Any, Any]
    args: dict[str, Any]
    attempt: int
    max_attempts: int
    lost: bool = False
    running: asyncio.Task[Any] | None = field(default=None, repr=False)


running_job: ContextVar[Claim] = ContextVar("running_job")


def current_job() -> Claim:
    """The job that the calling task runs for. Raises LookupError outside one."""
    return running_job.get()


def succeeded(claim: Claim, result: Any) -> tuple[Update, dict[str, Any]]:
    """A try that returned, with the values. Raises NonRetryable where the result isn't JSON."""
    try:
        jsonable = to_jsonable_python(result)
    except PydanticSerializationError as error:
        raise NonRetryable(f"the result is not JSON: {error}") from error
    kept = claim.args if claim.task.keep_args else None
    fence = {"job_id": claim.id, "attempt": claim.attempt}
    return _SUCCEEDED, fence | {"result": jsonable, "args": kept}


def handed_back(claim: Claim) -> Update:
    """Pending at once; the try isn't counted, by allowing one more (attempts only grow)."""
    again = {"status": Status.PENDING, "pushes": 0, "wake_at": clock(0)}
    more = {"max_attempts": jobs.c.max_attempts + 1}
    return table.outcome(claim.id, claim.attempt).values(again | more)


def failed(claim: Claim, error: Exception) -> Update:
    """Pending again after the backoff, or dead."""
    values: dict[str, Any] = {"error": text_of(error)}
    if isinstance(error, NonRetryable) or claim.attempt >= claim.max_attempts:
        values |= _ended(Status.DEAD)
    else:
        later = clock(next_delay(claim, error).total_seconds())
        values |= {"status": Status.PENDING, "pushes": 0, "run_at": later, "wake_at": later}
    return table.outcome(claim.id, claim.attempt).values(values)


def _ended(status: Status) -> dict[str, Any]:
    return {"status": status, "finished_at": clock(0), "wake_at": None}


_MINE = table.outcome(bindparam("job_id", type_=Uuid), bindparam("attempt", type_=Integer))
_SUCCEEDED = _MINE.values(error=None, **_ended(Status.SUCCEEDED))


def next_delay(claim: Claim, error: Exception) -> timedelta:
    """Exponential backoff with full jitter, unless the task said when."""
    if isinstance(error, RetryLater):
        return error.after
    ceiling = min(MAX_BACKOFF, claim.task.backoff * 2 ** min(claim.attempt - 1, 30))
    return timedelta(seconds=random.uniform(0, ceiling.total_seconds()))  # noqa: S311


def text_of(error: Exception) -> str:
    """Whatever it says, a database can keep it."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = f"{type(error).__name__}, which can't say what it is"
    return text.encode(errors="replace").decode().replace("\0", "?")
