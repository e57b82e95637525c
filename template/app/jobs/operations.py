"""What operators do with jobs: find them, run dead ones again, end them, see what waits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

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

from app.jobs import relay
from app.jobs.contract import registry
from app.jobs.relay import Message
from app.jobs.table import HAS_ENDED, HEAD_START, MAX_COUNT, Status, clock, jobs


class JobNotFoundError(LookupError):
    """No job has this id."""


class JobStateError(RuntimeError):
    """The job isn't in a state that allows this."""


class Operations:
    """They happen in the transaction of the session that it is given."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, job_id: UUID) -> Row[Any]:
        """The job's row. Raises JobNotFoundError."""
        row = (await self._session.execute(select(jobs).where(jobs.c.id == job_id))).first()
        if row is None:
            raise JobNotFoundError(job_id)
        return row

    async def find(
        self, status: Status, limit: int = 100, *, after: tuple[datetime, UUID] | None = None
    ) -> Sequence[Row[Any]]:
        """The newest jobs of this status; what comes `after` the `created_at` and id of one."""
        # A literal, and HAS_ENDED: else no planner takes a partial index.
        found = select(jobs).where(jobs.c.status == literal(status, literal_execute=True))
        if status not in (Status.PENDING, Status.RUNNING):
            found = found.where(text(HAS_ENDED))
        if after is not None:
            found = found.where(tuple_(jobs.c.created_at, jobs.c.id) < after)
        newest = jobs.c.created_at.desc(), jobs.c.id.desc()
        return (await self._session.execute(found.order_by(*newest).limit(limit))).all()

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

    async def backlog(self) -> Sequence[Row[Any]]:
        """Per queue: jobs that are due and wait, since when the oldest does, and the dead."""
        waits = jobs.c.status == Status.PENDING, jobs.c.run_at <= clock(0)
        counted = select(
            jobs.c.queue,
            func.count().filter(*waits).label("waiting"),
            func.min(jobs.c.run_at).filter(*waits).label("oldest"),
            func.count().filter(jobs.c.status == Status.DEAD).label("dead"),
        )
        unfinished = jobs.c.status.in_([Status.PENDING, Status.DEAD])
        return (await self._session.execute(counted.where(unfinished).group_by(jobs.c.queue))).all()

    async def prune(self, age: timedelta) -> int:
        """Delete the jobs that succeeded or were cancelled this long ago; returns how many."""
        ended = jobs.c.status.in_([Status.SUCCEEDED, Status.CANCELLED])
        old = delete(jobs).where(ended, jobs.c.finished_at < clock(-age.total_seconds()))
        return len((await self._session.execute(old.returning(jobs.c.id))).all())
