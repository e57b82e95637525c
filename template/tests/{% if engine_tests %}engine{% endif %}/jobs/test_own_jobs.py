"""Jobs that an owner's test runs in its own process run as on a host."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from httpx import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import AsyncSessionLocal
from app.jobs import Jobs, RetryLater, Status, current_job, task
from app.models import Order
from tests.engine import probes
from tests.engine.jobs.rows import cancel, orders_of, submit
from tests.jobs import OwnJobs

HOUR = timedelta(hours=1)


async def test_it_finds_waiting_jobs_in_the_order_of_their_due_times(own_jobs: OwnJobs) -> None:
    async with AsyncSessionLocal.begin() as session:
        jobs = Jobs(session)
        await jobs.submit(probes.echo, "later", delay=HOUR, key="a key", queue="maintenance")
        await jobs.submit(probes.hopeless)
    first, second = await own_jobs.submitted()
    assert (first.task, first.args, first.key) == ("probes.hopeless", {}, None)
    assert (second.delay, second.key, second.queue) == (HOUR, "a key", "maintenance")
    assert await own_jobs.submitted(probes.echo) == [second]


async def test_it_runs_what_is_due_and_no_more(own_jobs: OwnJobs) -> None:
    async with AsyncSessionLocal.begin() as session:
        later = await Jobs(session).submit(probes.echo, "later", delay=2 * HOUR)
    now = await submit(probes.echo, "now")
    assert [row.id for row in await own_jobs.run_due(HOUR)] == [now]
    assert [row.id for row in await own_jobs.run_due(2 * HOUR)] == [later.id]


async def test_a_failed_try_waits_for_its_backoff(own_jobs: OwnJobs) -> None:
    row = await own_jobs.run(probes.flaky, 2)
    assert (row.status, row.attempts) == (Status.PENDING, 1)
    [row] = await own_jobs.run_due(HOUR)
    assert (row.status, row.attempts, row.result) == (Status.SUCCEEDED, 3, 3)


@task(name="own_jobs.cancel_me")
async def cancel_me(db: AsyncSession, item: str) -> None:
    await cancel(current_job().id)
    db.add(Order(item=item, quantity=1))


async def test_a_try_that_lost_its_job_writes_nothing(own_jobs: OwnJobs) -> None:
    row = await own_jobs.run(cancel_me, item := "own jobs: lost")
    assert row.status == Status.CANCELLED
    assert await orders_of(item) == 0


def test_outside_a_job_there_is_no_current_one() -> None:
    with pytest.raises(LookupError, match=r"no job runs here: .*own_jobs\.run"):
        current_job()


@task(name="own_jobs.expected", backoff=HOUR)
async def expected() -> None:
    raise RetryLater("the other server rests")


async def test_what_is_expected_waits_for_the_backoff(own_jobs: OwnJobs) -> None:
    row = await own_jobs.run(expected)
    assert (row.status, row.attempts) == (Status.PENDING, 1)
    assert timedelta(0) < row.run_at - datetime.now(UTC) <= HOUR


@task(name="own_jobs.again")
async def again(db: AsyncSession, delay: timedelta) -> None:
    await Jobs(db).submit(again, delay, delay=delay)


async def test_time_passes_for_what_jobs_submit(own_jobs: OwnJobs) -> None:
    await own_jobs.run(again, HOUR)
    assert len(await own_jobs.run_due(HOUR)) == 1
    assert len(await own_jobs.run_due(3.5 * HOUR)) == 3
    [waiting] = await own_jobs.submitted()
    assert waiting.delay == HOUR


async def test_it_reads_beside_a_session_that_is_open(
    own_jobs: OwnJobs, api: AsyncClient, session: AsyncSession
) -> None:
    """On SQLite all requests share one connection."""
    assert await session.get(Order, uuid4()) is None
    assert (await api.get(f"/orders/{uuid4()}")).status_code == 404
    assert (await own_jobs.run(probes.echo, "a")).status == Status.SUCCEEDED


async def test_a_task_that_submits_itself_for_ever_is_reported(
    own_jobs: OwnJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.jobs.MOST_TRIES", 3)
    await own_jobs.run(again, timedelta(0))
    with pytest.raises(AssertionError, match="are still due"):
        await own_jobs.run_due()
    await own_jobs.clear()


async def test_max_running_holds_here_too(own_jobs: OwnJobs) -> None:
    running: UUID = await submit(probes.alone, 0.0, status=Status.RUNNING)
    with pytest.raises(AssertionError, match="max_running=1"):
        await own_jobs.run(probes.alone, 0.0)
    await cancel(running)
    [row] = await own_jobs.run_due()
    assert row.status == Status.SUCCEEDED
