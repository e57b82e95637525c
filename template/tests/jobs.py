"""Lets tests of tasks see which jobs were submitted, and run them here, on any back end.

The jobs are in the database of the tests' own process. Neither a host nor a clock runs there, so
each job waits until a test runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, delete, select, true, update

from app.core.control import control
from app.core.database import AsyncSessionLocal
from app.jobs import Jobs, Status, StoredJob, Task
from app.jobs.backends import (
    attempt_alone,
    claim,
    db_time,
    find_task,
    jobs,
    submit_named,
    write_all,
)

MOST_TRIES = 1000  # a limit for tasks that submit themselves

AnyTask = Task[..., Any, Any]


@dataclass(frozen=True)
class Submitted:
    """A job that waits. `args` are JSON, by name; `delay` begins at the submit."""

    id: UUID
    task: str
    args: dict[str, Any]
    delay: timedelta
    key: str | None
    queue: str


class OwnJobs:
    """The jobs of this process. The fixture `own_jobs` deletes all of them first."""

    async def clear(self) -> None:
        async with AsyncSessionLocal.begin() as session:
            await session.execute(delete(jobs))

    async def submitted(self, task: AnyTask | None = None) -> list[Submitted]:
        """The jobs that wait, of all tasks or of one, in the order in which they are due."""
        return [
            Submitted(r.id, r.task, r.args, r.run_at - r.created_at, r.key, r.queue)
            for r in await _waiting(true() if task is None else jobs.c.task == task.name)
        ]

    async def run_due(self, within: timedelta = timedelta(0)) -> list[StoredJob]:
        """Run what is due, or will be within this time, and what these jobs submit or try again.

        As in the service, what a job submits waits from the time at which this job was due. Returns
        the row of each job that ran: `status`, `attempts`, `result`, `error`, and so on.
        """
        ran: dict[UUID, None] = {}
        began, now = dict[UUID, timedelta](), timedelta(0)  # when each wait began; the time
        for _ in range(MOST_TRIES):
            waiting = await _waiting(true())
            due = {r.id: began.setdefault(r.id, now) + r.run_at - r.now for r in waiting}
            job_id = min(due, key=due.__getitem__, default=None)
            if job_id is None or due[job_id] > within:
                return [await self.row(each) for each in ran]
            now = max(now, due[job_id])
            del began[job_id]
            ran[job_id] = None
            await self._try(job_id)
        raise AssertionError(f"after {MOST_TRIES} tries jobs are still due: {waiting[0].task}")

    async def run(self, task: AnyTask, *args: Any) -> StoredJob:
        """Submit a job of this task, and run one try of it; returns its row."""
        async with AsyncSessionLocal.begin() as session:
            submitted = await submit_named(session, task, task.serialize(*args))
        await self._try(submitted.id)
        return await self.row(submitted.id)

    async def row(self, job_id: UUID) -> StoredJob:
        """Raises JobNotFoundError."""
        async with AsyncSessionLocal() as session:
            return await Jobs(session).get(job_id)

    async def _try(self, job_id: UUID) -> None:
        """Claim and run the job, and write its outcome, as a host does."""
        async with AsyncSessionLocal.begin() as session:
            await session.execute(update(jobs).where(jobs.c.id == job_id).values(run_at=db_time(0)))
        task = find_task((await self.row(job_id)).task)
        bound = task.max_running
        claiming = partial(claim, job_id=job_id, task=task.name, max_running=bound)
        taken = await control(claiming, transaction=bound is not None)
        assert taken, f"{task.name} has max_running={bound}, and so many of its jobs run"
        outcome = await attempt_alone(taken)
        if outcome:
            await control(partial(write_all, group=[outcome]))


async def _waiting(which: ColumnElement[bool]) -> Sequence[Row[Any]]:
    found = select(jobs, db_time(0).label("now")).where(jobs.c.status == Status.PENDING, which)
    async with AsyncSessionLocal() as session:
        return (await session.execute(found.order_by(jobs.c.run_at, jobs.c.created_at))).all()
