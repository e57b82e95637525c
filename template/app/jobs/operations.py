"""What operators do with jobs and queues: find, replay, cancel, pause, and see what waits."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Delete, Select, Update, case, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.jobs import finding, relay
from app.jobs.contract import registry
from app.jobs.finding import JobFilter, JobPage, Place, StoredJob, stored
from app.jobs.queues import ProcessState, QueueState, pausing, process_states, queue_states
from app.jobs.table import HEAD_START, MAX_COUNT, Status, database_now, db_time, jobs


class JobNotFoundError(LookupError):
    """No job has this id."""


class QueueNotFoundError(LookupError):
    """Neither QUEUES nor any job names this queue."""


class JobStateError(RuntimeError):
    """The job isn't in a state that allows this."""


_ENDED = update(jobs).values(status=Status.CANCELLED, finished_at=db_time(0), wake_at=None)


class Operations:
    """Each of them happens in the transaction of the session that it was made with."""

    def __init__(self, session: AsyncSession) -> None:
        if isinstance(session, Session):
            raise TypeError("Jobs takes an AsyncSession; in a sync task, use SyncJobs")
        self._session = session
        self._died_until: datetime | None = None  # what dies later isn't replayed
        self._passed = dict[object, Place | None]()  # where the last batch ended

    async def get(self, job_id: UUID) -> StoredJob:
        """Raises JobNotFoundError."""
        row = (await self._session.execute(select(jobs).where(jobs.c.id == job_id))).first()
        if row is None:
            raise JobNotFoundError(job_id)
        return stored(row)

    async def find(
        self, wanted: JobFilter, limit: int = 100, *, after: Place | None = None
    ) -> JobPage:
        """The newest jobs first; after the first page, from the place that its `next` names.

        A page looks at 10,000 rows at most. If they have fewer such jobs than the limit, the page
        is short and still names the next one.
        """
        rows = (await self._session.execute(finding.page(wanted, limit + 1, after))).all()
        more = len(rows) > limit or any(row.last for row in rows)
        found = [stored(row) for row in rows[:limit] if row.matching]
        return JobPage(found, finding.place_of(rows[:limit]) if more else None)

    async def count(self, wanted: JobFilter, most: int = 100_000) -> int:
        """How many jobs match. It stops counting at `most`."""
        counted = await self._session.execute(finding.number(wanted, most))
        return int(counted.scalar_one())

    async def until_now(self, wanted: JobFilter) -> JobFilter:
        """The filter without jobs that are created from now on, by the database's clock."""
        now = await database_now(self._session)
        return replace(wanted, until=min(now, wanted.until or now))

    async def replay(self, job_id: UUID) -> None:
        """Run a dead job again, with all its tries. Raises JobNotFoundError, JobStateError."""
        row = await self.get(job_id)
        if row.attempts >= MAX_COUNT:
            raise JobStateError("the job has been tried as often as can be counted")
        try:
            async with self._session.begin_nested():  # an error must not end the caller's work
                await self._change(job_id, _again(), jobs.c.status == Status.DEAD, "is not dead")
        except IntegrityError:
            raise JobStateError("another job has taken this job's key") from None
        self._ring_for(row.queue)

    async def cancel(self, job_id: UUID) -> None:
        """End a job. If it runs, its host stops it within a third of LEASE.

        Raises JobNotFoundError, JobStateError.
        """
        await self.get(job_id)
        over = jobs.c.status.in_([Status.SUCCEEDED, Status.DEAD, Status.CANCELLED])
        await self._change(job_id, _ENDED, ~over, "has ended")

    async def _change(
        self, job_id: UUID, change: Update, allowed: ColumnElement[bool], otherwise: str
    ) -> None:
        where = change.where(jobs.c.id == job_id, allowed)
        if (await self._session.execute(where.returning(jobs.c.id))).first() is None:
            raise JobStateError(f"the job {otherwise}")

    async def replay_some(self, wanted: JobFilter, limit: int = 1000) -> int:
        """Replay a batch of the dead jobs. Returns how many. Commit, and repeat until it is 0.

        It leaves jobs whose key another job has, jobs that somebody else changes at the moment, and
        jobs that have been tried as often as can be counted. It leaves jobs that died after the
        first batch of this object, so that it ends.
        """
        if not wanted.to_replay():
            return 0
        self._died_until = self._died_until or await database_now(self._session)
        after = self._passed.get(wanted)
        dead = finding.replayable(wanted, limit, self._died_until, after)
        try:
            async with self._session.begin_nested():  # on SQLite nobody else writes from here on
                rows = (await self._session.execute(dead)).all()
                one_each = {(r.task, r.id if r.key is None else r.key): r for r in rows}.values()
                changed = _again().where(jobs.c.id.in_([row.id for row in one_each]))
                await self._session.execute(changed)
        except IntegrityError:  # somebody has taken a key since it was read
            return await self.replay_some(wanted, limit)
        self._passed[wanted] = finding.place_of(rows) or after
        for queue in {row.queue for row in one_each}:
            self._ring_for(queue)
        return len(one_each)

    async def cancel_some(self, wanted: JobFilter, limit: int = 1000) -> int:
        """Cancel a batch of the jobs that wait or run, as `replay_some` replays dead ones."""
        for status in wanted.statuses(Status.PENDING, Status.RUNNING):
            lane = replace(wanted, status=status)
            found = finding.oldest(lane, status, limit, self._passed.get(lane))
            if number := await self._next(_ENDED, found, lane):
                return number
        self._passed.clear()
        return 0

    async def _next(self, change: Update | Delete, found: Select[Any], lane: object) -> int:
        """Change what was found, and keep where it ends. Returns how many jobs it has."""
        # PostgreSQL reads a CTE once. It may read a subquery again, and pass its limit.
        ids = select(found.cte().c.id)
        changed = change.where(jobs.c.id.in_(ids)).returning(jobs.c.id, jobs.c.created_at)
        if rows := (await self._session.execute(changed)).all():
            places = filter(None, (finding.place_of([row]) for row in rows))
            self._passed[lane] = max(places, default=None)
        return len(rows)

    async def queues(self) -> list[QueueState]:
        """The queues of the setting QUEUES, and those that only rows name."""
        return await queue_states(self._session)

    async def processes(self) -> list[ProcessState]:
        """The processes that were seen in the last five minutes."""
        return await process_states(self._session)

    async def pause(self, queue: str) -> QueueState:
        """Start no job of the queue until it is resumed. Jobs that run go on.

        Raises QueueNotFoundError for a queue that neither QUEUES nor any job names.
        """
        return await self._set(queue, paused=True)

    async def resume(self, queue: str) -> QueueState:
        """End the pause. Raises QueueNotFoundError, as `pause` does."""
        resumed = await self._set(queue, paused=False)
        self._ring_for(queue)
        return resumed

    async def _set(self, queue: str, *, paused: bool) -> QueueState:
        for each in await self.queues():
            if each.name == queue:
                since = await self._session.scalar(pausing(queue, paused=paused))
                return replace(each, paused_at=since)
        raise QueueNotFoundError(queue)

    def _ring_for(self, queue: str) -> None:
        relay.ring_after_commit(self._session.sync_session, relay.any_job_of(queue))

    async def prune(self, age: timedelta, limit: int = 5000) -> int:
        """Delete a batch of the jobs that succeeded or were cancelled this long ago.

        It leaves jobs with `keep_key`, except those of ticks. Returns how many are deleted. Commit,
        and repeat until it is 0: each batch of this object begins where the last one ended.
        """
        for status in (Status.CANCELLED, Status.SUCCEEDED):
            old = finding.prunable(status, age, limit, self._passed.get(status))
            if number := await self._next(delete(jobs), old, status):
                return number
        self._passed.clear()
        return 0


def _again() -> Update:
    """Makes dead jobs pending, with all the tries that their tasks allow."""
    allowed = {task.name: task.tries for task in registry().values()} or {"": 1}
    tries = case(allowed, value=jobs.c.task, else_=1)
    return update(jobs).values(
        status=Status.PENDING,
        max_attempts=case(
            (jobs.c.attempts < MAX_COUNT - tries, jobs.c.attempts + tries), else_=MAX_COUNT
        ),
        crashes=0,
        pushes=0,
        refused_at=None,
        run_at=db_time(0),
        wake_at=db_time(HEAD_START),
        finished_at=None,
    )
