"""Submitting jobs in the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypedDict, TypeVar, TypeVarTuple, Unpack, overload
from uuid import UUID, uuid4

import structlog
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.config import get_settings
from app.core import tracing
from app.jobs import relay
from app.jobs.contract import Arguments, Bound, Task
from app.jobs.endings import NAMED, Origin
from app.jobs.inserts import insert_many, insert_one
from app.jobs.operations import Operations
from app.jobs.relay import Message
from app.jobs.running import running_job
from app.jobs.table import HEAD_START, HOLDS_KEY, jobs

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

LONGEST = 200  # characters of a name that came from outside


@dataclass(frozen=True)
class Job(Generic[R]):
    """A submitted job. `created` is False if there already was a job with this `key`."""

    id: UUID
    task: str
    created: bool = True


class Options(TypedDict, total=False):
    """When a job runs, what it is known by, and which queue it waits in."""

    delay: timedelta | None
    at: datetime | None
    key: str | None
    keep_key: bool
    queue: str | None


class Jobs(Operations):
    """Submits jobs in the transaction of the session that it is made with."""

    @overload
    async def submit(
        self, task: Callable[[*Ts], Bound[R]], *args: *Ts, **options: Unpack[Options]
    ) -> Job[R]: ...
    @overload
    async def submit(
        self, task: Callable[[*Ts], Coroutine[Any, Any, R]], *args: *Ts, **options: Unpack[Options]
    ) -> Job[R]: ...
    @overload
    async def submit(
        self, task: Callable[[*Ts], R], *args: *Ts, **options: Unpack[Options]
    ) -> Job[R]: ...
    async def submit(  # type: ignore[misc]
        self, task: Any, *args: Any, **options: Unpack[Options]
    ) -> Job[Any]:
        """Insert a job. It exists if and only if the caller's transaction commits.

        It runs at once, after `delay`, or not before `at` (an aware datetime). If there is a job of
        this task with this `key`, that one is returned instead, until it has ended. With `keep_key`
        it is returned for good: no schedule deletes its row.

        Raises TypeError for a plain function or too many arguments. Raises ValueError for arguments
        that are wrong or over 64 KiB, a naive `at`, or a queue that nothing carries.
        """
        return await submit_named(self._session, task, _dumped(task, args), **options)

    async def submit_many(
        self,
        task: Task[..., Any, R],
        calls: Iterable[Sequence[Any]],
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        queue: str | None = None,
    ) -> list[Job[R]]:
        """Insert a job for each tuple, thousands at once, without keys. Raises as `submit` does."""
        lane = _carried(queue or _checked(task).queue)
        rows = [(uuid4(), json.dumps(task.serialize(*args))) for args in calls]
        shared = {"task": task.name, "queue": lane, "max_attempts": task.tries}
        shared |= {"signature": task.signature} | _timing(delay, at)
        # A task with `max_running` gets its messages as its jobs end.
        bounded = task.max_running is not None
        noted = _notes(lane, len(rows)) if _is_due(delay, at) and not bounded else 0
        connection = await self._session.connection()
        count = {"messaging.batch.message_count": len(rows)}
        with tracing.submitting(task.name, lane, **count):
            shared["origin"] = _origin()
            await insert_many(connection, rows[:noted], shared | {"pushes": 1})
            await insert_many(connection, rows[noted:], shared | {"pushes": 0})
        relay.note_submitted(self._session.sync_session, task.name, len(rows))
        messages = [Message(job_id, task.name, lane, noted=True) for job_id, _ in rows[:noted]]
        if _is_due(delay, at):  # one ring is enough for all the others
            messages += [Message(job_id, task.name, lane) for job_id, _ in rows[noted:][-1:]]
        relay.ring_after_commit(self._session.sync_session, *messages)
        return [Job(job_id, task.name) for job_id, _ in rows]


class SyncJobs:
    """`Jobs` for a sync task. It submits in the transaction of the task's `Session`."""

    def __init__(self, session: Session) -> None:
        if not isinstance(session, Session):
            raise TypeError("SyncJobs takes a Session; with an AsyncSession, use Jobs")
        self._session = session

    @overload
    def submit(
        self, task: Callable[[*Ts], Bound[R]], *args: *Ts, **options: Unpack[Options]
    ) -> Job[R]: ...
    @overload
    def submit(
        self, task: Callable[[*Ts], Coroutine[Any, Any, R]], *args: *Ts, **options: Unpack[Options]
    ) -> Job[R]: ...
    @overload
    def submit(
        self, task: Callable[[*Ts], R], *args: *Ts, **options: Unpack[Options]
    ) -> Job[R]: ...
    def submit(  # type: ignore[misc]
        self, task: Any, *args: Any, **options: Unpack[Options]
    ) -> Job[Any]:
        """Like `Jobs.submit`."""
        return _submit(self._session, task, _dumped(task, args), **options)


async def submit_named(
    session: AsyncSession,
    task: Task[..., Any, Any],
    arguments: Arguments,
    **options: Unpack[Options],
) -> Job[Any]:
    """Like `Jobs.submit`, for arguments that `Task.dump` or `Task.check` has made."""
    return await session.run_sync(lambda inner: _submit(inner, task, arguments, **options))


def _submit(
    session: Session,
    task: Task[..., Any, Any],
    arguments: Arguments,
    *,
    delay: timedelta | None = None,
    at: datetime | None = None,
    key: str | None = None,
    keep_key: bool = False,
    queue: str | None = None,
) -> Job[Any]:
    lane = queue or task.queue
    noted = _is_due(delay, at) and _notes(lane, 1) == 1
    message = Message(uuid4(), task.name, lane, noted)
    values = {
        "id": message.id,
        "task": task.name,
        "queue": _carried(lane),
        "args": arguments,
        "key": key,
        "keep_key": keep_key,
        "max_attempts": task.tries,
        "signature": task.signature,
        "pushes": int(message.noted),
        **_timing(delay, at),
    }
    named = {"messaging.message.id": str(message.id)}
    with tracing.submitting(task.name, lane, **named):
        values["origin"] = _origin()
        created = session.connection().execute(insert_one(at is None), values).first()
    if created is None:
        return _holder(session, task.name, key)
    relay.note_submitted(session, task.name, 1)
    if _is_due(delay, at):
        relay.ring_after_commit(session, message)
    return Job(message.id, task.name)


def _origin() -> Origin | None:
    """The request, the schedule and the job in which this is called; None outside them all."""
    context = structlog.contextvars.get_contextvars()
    found = {name: str(context[name])[:LONGEST] for name in NAMED if name in context}
    if claim := running_job.get(None):
        found["job_id"] = str(claim.id)
    found |= tracing.here()
    return found or None


def _holder(session: Session, task: str, key: str | None) -> Job[Any]:
    same = select(jobs.c.id).where(jobs.c.task == task, jobs.c.key == key)
    # As text: with bound values the planner couldn't use the partial index.
    found = session.scalar(same.where(text(HOLDS_KEY)))
    if found is None:  # it has ended just now
        found = session.scalars(same.order_by(jobs.c.created_at.desc()).limit(1)).one()
    return Job(found, task, created=False)


def _dumped(task: Any, args: tuple[Any, ...]) -> Arguments:
    return _checked(task).serialize(*args)


def _checked(task: Any) -> Task[..., Any, Any]:
    if not isinstance(task, Task):
        raise TypeError(f"{task!r} is not a task: put @task() on it")
    return task


def _carried(queue: str) -> str:
    if queue not in get_settings().queues:
        raise ValueError(f"no back end carries the queue {queue!r}: name it in QUEUES")
    return queue


def _timing(delay: timedelta | None, at: datetime | None) -> dict[str, Any]:
    if delay is not None and at is not None:
        raise ValueError("give delay or at, not both")
    if at is None:
        return {"delay": delay.total_seconds() if delay else 0.0}
    if at.tzinfo is None:
        raise ValueError("at must be an aware datetime")
    return {"run_at": at, "wake_at": at + timedelta(seconds=HEAD_START)}


def _is_due(delay: timedelta | None, at: datetime | None) -> bool:
    return not delay and at is None


def _notes(queue: str, number: int) -> int:
    here = relay.current_relay()
    return here.notes(queue, number) if here else 0
