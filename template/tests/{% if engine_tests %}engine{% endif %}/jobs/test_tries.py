"""A job's row has its tries: who ran each, from when to when, and how it ended."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.control import control
from app.core.database import IS_SQLITE, AsyncSessionLocal
from app.jobs import Jobs, Status, StoredJob
from app.jobs.claims import LEASE_LOST, take_back
from app.jobs.host import Host
from app.jobs.outcomes import Outcome, write_all
from app.jobs.table import db_time
from app.jobs.tries import Try, this_worker
from tests.engine import probes
from tests.engine.jobs.rows import change, database_now, row_of, status_is, submit

pytestmark = pytest.mark.usefixtures("no_other_jobs")

PENDING, RUNNING, SUCCEEDED, DEAD = (
    Status.PENDING,
    Status.RUNNING,
    Status.SUCCEEDED,
    Status.DEAD,
)


async def claimed(worker: str = "h:1") -> UUID:
    """Make a job whose first try has run for a second."""
    began: dict[str, Any] = {
        "attempts": 1,
        "started_at": db_time(-1),
        "wake_at": db_time(60),
        "worker": worker,
    }
    return await submit(probes.echo, "a", status=RUNNING, **began)


async def write(*outcomes: Outcome) -> None:
    written = await control(lambda connection: write_all(connection, outcomes))
    assert written.keys() == {(each.id, each.attempt) for each in outcomes}


async def stored(job_id: UUID) -> StoredJob:
    async with AsyncSessionLocal() as session:
        return await Jobs(session).get(job_id)


@pytest.mark.parametrize("together", [1, 2])
async def test_a_try_that_ends_is_kept_with_its_worker_and_error(together: int) -> None:
    """Outcomes are written alone and in a group. The running or last try is in other columns."""
    ids = [await claimed() for _ in range(together)]
    error = "RuntimeError: é" * 200
    await write(*(Outcome(each, 1, PENDING, error=error) for each in ids))
    for each in ids:
        await change(each, status=RUNNING, attempts=2, worker="h:2", started_at=db_time(0))
    first, running = (await stored(ids[-1])).tries
    assert (first.number, first.worker, first.error) == (1, "h:1", error[:1000])
    assert first.started_at and first.ended_at and first.started_at < first.ended_at
    assert (running.number, running.worker) == (2, "h:2")
    assert (running.error, running.ended_at) == (None, None)
    await write(*(Outcome(each, 2, SUCCEEDED, result=1) for each in ids))
    done = await stored(ids[-1])
    assert done.tries == [first, Try(2, done.started_at, done.finished_at, "h:2", None)]


async def test_a_first_try_that_succeeds_adds_nothing_to_the_row(host: Host) -> None:
    row = await status_is(await submit(probes.echo, "a"), SUCCEEDED)
    assert (row.tries, row.worker) == (None, this_worker())
    [only] = (await stored(row.id)).tries
    assert only == Try(1, row.started_at, row.finished_at, this_worker(), None)


async def test_a_job_that_was_never_tried_has_no_tries() -> None:
    waits = await submit(probes.echo, "a", run_at=db_time(60))
    assert (await stored(waits)).tries == []


async def test_the_last_ten_tries_are_kept(session: AsyncSession) -> None:
    """Garbage in the column is replaced."""
    job_id = await claimed()
    garbage = "UPDATE jobs SET tries = '{}'" if IS_SQLITE else "UPDATE jobs SET tries = '{}'::jsonb"
    await session.execute(text(garbage))
    await session.commit()
    for number in range(1, 13):
        await change(job_id, status=RUNNING, attempts=number)
        await write(Outcome(job_id, number, PENDING, error=f"Error: {number}"))
    kept = [(each.number, each.error) for each in (await stored(job_id)).tries]
    assert kept == [(number, f"Error: {number}") for number in range(3, 13)]


@pytest.mark.parametrize("wrong", ["yesterday", "0001-01-01T00:00:00+14:00"])
async def test_a_try_whose_time_cannot_be_read_hides_no_other(wrong: str) -> None:
    """Its time may also be none in UTC."""
    job_id = await claimed()
    await write(Outcome(job_id, 1, PENDING, error="Error: no"))
    [kept] = (await row_of(job_id)).tries
    await change(job_id, tries=[kept | {"started_at": wrong}, kept])
    assert [each.error for each in (await stored(job_id)).tries] == ["Error: no"]


async def test_a_replayed_job_keeps_the_try_that_it_died_of(session: AsyncSession) -> None:
    job_id = await claimed()
    await write(Outcome(job_id, 1, DEAD, error="Error: died"))
    await Jobs(session).replay(job_id)
    await session.commit()
    assert [each.error for each in (await stored(job_id)).tries] == ["Error: died"]


async def test_a_try_whose_lease_was_lost_is_kept() -> None:
    job_id = await claimed()
    await change(job_id, wake_at=db_time(-1))
    await control(partial(take_back, latest=await database_now()))
    [lost] = (await stored(job_id)).tries
    assert (lost.number, lost.worker, lost.error) == (1, "h:1", LEASE_LOST)
    assert (await row_of(job_id)).status == PENDING
