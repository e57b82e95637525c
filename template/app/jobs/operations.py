"""What operators do with jobs: find them, run dead ones again, end them, see what waits."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import (
    ColumnElement,
    Row,
    Update,
    delete,
    func,
    literal,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.jobs import relay
from app.jobs.contract import registry
from app.jobs.relay import Message
from app.jobs.table import HAS_ENDED, HEAD_START, MAX_COUNT, Status, clock, jobs


class JobNotFoundError(LookupError):
    """No job has this id."""


class JobStateError(RuntimeError):
    """The job isn't in a state that allows this."""


@dataclass(frozen=True)
class StoredJob:
    """A job's row. What somebody broke by hand stands here as it was read."""

    id: UUID
    task: str
    queue: str
    args: JsonValue
    key: str | None
    keep_key: bool
    status: Status
    attempts: int
    max_attempts: int
    signature: str | None
    refused_at: datetime | None
    crashes: int
    pushes: int
    result: Any  # JSON
    error: str | None
    created_at: datetime
    run_at: datetime
    wake_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True)
class Backlog:
    """A queue's jobs that are due and wait, since when the oldest does, and its dead ones."""

    queue: str
    waiting: int
    oldest: datetime | None
    dead: int


class Operations:
    """They happen in the transaction of the session that it is given."""

    def __init__(self, session: AsyncSession) -> None:
        if isinstance(session, Session):
            raise TypeError("Jobs takes an AsyncSession; in a sync task, use SyncJobs")
        self._session = session

    async def get(self, job_id: UUID) -> StoredJob:
        """Raises JobNotFoundError."""
        row = (await self._session.execute(select(jobs).where(jobs.c.id == job_id))).first()
        if row is None:
            raise JobNotFoundError(job_id)
        return _stored(row)

    async def find(
        self, status: Status, limit: int = 100, *, after: tuple[datetime, UUID] | None = None
    ) -> list[StoredJob]:
        """The newest jobs of this status; what comes `after` the `created_at` and id of one."""
        # A literal, and HAS_ENDED: else no planner takes a partial index.
        found = select(jobs).where(jobs.c.status == literal(status, literal_execute=True))
        if status not in (Status.PENDING, Status.RUNNING):
            found = found.where(text(HAS_ENDED))
        if after is not None:
            found = found.where(tuple_(jobs.c.created_at, jobs.c.id) < after)
        newest = jobs.c.created_at.desc(), jobs.c.id.desc()
        rows = await self._session.execute(found.order_by(*newest).limit(limit))
        return [_stored(row) for row in rows]

    async def replay(self, job_id: UUID) -> None:
        """Run a dead job again, with all its tries. Raises JobNotFoundError, JobStateError."""
        row = await self.get(job_id)
        task = registry().get(row.task)
        if row.attempts >= MAX_COUNT:
            raise JobStateError("the job has been tried as often as can be counted")
        again = update(jobs).values(
            status=Status.PENDING,
            max_attempts=min(row.attempts + (task.tries if task else 1), MAX_COUNT),
            crashes=0,
            pushes=0,
            refused_at=None,
            run_at=clock(0),
            wake_at=clock(HEAD_START),
            finished_at=None,
        )
        try:
            await self._change(job_id, again, jobs.c.status == Status.DEAD, "is not dead")
        except IntegrityError:
            raise JobStateError("another job has taken this job's key") from None
        relay.ring_after_commit(self._session.sync_session, Message(job_id, row.task, row.queue))

    async def cancel(self, job_id: UUID) -> None:
        """End a job; where it runs, its worker stops it at the next heartbeat.

        Raises JobNotFoundError, JobStateError.
        """
        ended = update(jobs).values(status=Status.CANCELLED, finished_at=clock(0), wake_at=None)
        await self.get(job_id)
        over = jobs.c.status.in_([Status.SUCCEEDED, Status.DEAD, Status.CANCELLED])
        await self._change(job_id, ended, ~over, "has ended")

    async def _change(
        self, job_id: UUID, change: Update, allowed: ColumnElement[bool], otherwise: str
    ) -> None:
        where = change.where(jobs.c.id == job_id, allowed)
        if (await self._session.execute(where.returning(jobs.c.id))).first() is None:
            raise JobStateError(f"the job {otherwise}")

    async def backlog(self) -> list[Backlog]:
        """Of each queue that has jobs which wait or are dead."""
        waits = jobs.c.status == Status.PENDING, jobs.c.run_at <= clock(0)
        counted = select(
            jobs.c.queue,
            func.count().filter(*waits).label("waiting"),
            func.min(jobs.c.run_at).filter(*waits).label("oldest"),
            func.count().filter(jobs.c.status == Status.DEAD).label("dead"),
        )
        unfinished = jobs.c.status.in_([Status.PENDING, Status.DEAD])
        rows = await self._session.execute(counted.where(unfinished).group_by(jobs.c.queue))
        return [Backlog(**row._mapping) for row in rows]

    async def prune(self, age: timedelta) -> int:
        """Delete the jobs that succeeded or were cancelled this long ago; returns how many."""
        ended = jobs.c.status.in_([Status.SUCCEEDED, Status.CANCELLED])
        old = delete(jobs).where(ended, jobs.c.finished_at < clock(-age.total_seconds()))
        return len((await self._session.execute(old.returning(jobs.c.id))).all())


def _stored(row: Row[Any]) -> StoredJob:
    values = dict(row._mapping)
    with suppress(ValueError):
        values["status"] = Status(values["status"])
    return StoredJob(**values)
