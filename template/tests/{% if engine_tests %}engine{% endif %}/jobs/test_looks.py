"""Which jobs one look takes, and what it says of the others."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import get_settings
from app.core.control import control
from app.core.database import IS_SQLITE
from app.jobs import Jobs, Status, claims
from app.jobs.looks import EVER, Look, Lookout, Wanted, look
from app.jobs.table import db_time, jobs
from tests.engine import probes
from tests.engine.jobs.rows import row_of, statuses, submit
from tests.engine.jobs.statements import plans_of, statements
from tests.service import eventually

pytestmark = pytest.mark.usefixtures("no_other_jobs")

QUEUES = ["default", "orders"]
WANTED = Wanted(QUEUES, [probes.echo.name, probes.echo_sync.name], [probes.alone.name])


async def take(slots: int = 10) -> Look:
    return await control(lambda connection: look(connection, WANTED, slots))


def ids(found: Look) -> list[UUID]:
    return [each.id for each in found.taken]


async def submit_to_all(count: int) -> list[UUID]:
    """Submit jobs of two tasks into two queues. Each is due a second after the one before."""
    kinds = [(task, queue) for queue in QUEUES for task in (probes.echo, probes.echo_sync)]
    return [
        await submit(kinds[n % 4][0], "a", queue=kinds[n % 4][1], run_at=db_time(n - 100))
        for n in range(count)
    ]


async def test_the_oldest_jobs_of_all_tasks_and_queues_are_taken() -> None:
    waiting = await submit_to_all(10)
    for first, last in ((0, 3), (3, 4), (4, 10)):
        assert sorted(ids(await take(last - first))) == sorted(waiting[first:last])
    assert ids(await take()) == []


async def test_no_more_jobs_are_taken_than_fit() -> None:
    """One kind alone has more jobs than slots. A look also considers jobs that others may take."""
    for _ in range(9):
        await submit(probes.echo, "a")
    counts = [len((await take(4)).taken) for _ in range(4)]
    assert counts == [4, 4, 1, 0]


async def test_what_is_not_for_this_host_is_left_alone() -> None:
    others = [
        await submit(probes.echo, "a", run_at=db_time(60)),
        await submit(probes.echo, "a", queue="workflows"),
        await submit(probes.echo, "a", task="of.another_release"),
        *[await submit(probes.echo, "a", status=each) for each in Status if each != "pending"],
    ]
    before = [await row_of(job_id) for job_id in others]
    found = await take()
    assert (found.taken, found.one_by_one) == ([], False)
    assert [await row_of(job_id) for job_id in others] == before


async def test_a_job_that_is_taken_is_counted_and_leased_by_the_databases_clock(
    session: AsyncSession,
) -> None:
    job_id = await submit(probes.echo, "hello", attempts=2, max_attempts=7)
    [taken] = (await take()).taken
    assert (taken.id, taken.task, taken.args) == (job_id, "probes.echo", {"text": "hello"})
    assert (taken.attempt, taken.max_attempts) == (3, 7)
    row = await row_of(job_id)
    assert (row.status, row.attempts) == (Status.RUNNING, 3)
    assert row.wake_at - row.started_at == timedelta(seconds=get_settings().lease)
    begun = jobs.c.started_at <= db_time(0), jobs.c.started_at >= jobs.c.created_at
    assert await session.scalar(select(jobs.c.id).where(*begun)) == job_id


async def test_a_look_says_when_the_next_job_falls_due() -> None:
    assert (await take()).wait is None
    await submit(probes.echo, "a", run_at=db_time(-5))
    await submit(probes.echo, "a", run_at=db_time(3600))
    await submit(probes.echo, "a", run_at=db_time(60), queue="workflows")
    await submit(probes.echo, "a", run_at=db_time(60), task="of.another_release")
    await submit(probes.echo, "a", run_at=db_time(60), status=Status.CANCELLED)
    assert 1800 < ((await take()).wait or 0) < 3601
    await submit(probes.echo_sync, "a", run_at=db_time(1800), queue="orders")
    assert 900 < ((await take()).wait or 0) < 1801
    await submit(probes.alone, 0, run_at=db_time(900))
    assert 60 < ((await take()).wait or 0) < 901


async def test_several_looks_at_once_take_each_job_once(session: AsyncSession) -> None:
    calls = [("a",)] * 300
    submitted = [job.id for job in await Jobs(session).submit_many(probes.echo, calls)]
    await session.commit()
    taken: list[UUID] = []
    while len(taken) < len(submitted):
        looks = await asyncio.gather(*(take(7) for _ in range(20)))
        taken += (found := [job_id for each in looks for job_id in ids(each)])
        assert found
    assert sorted(taken) == sorted(submitted)
    assert set(await session.scalars(select(jobs.c.attempts))) == {1}


@pytest.mark.parametrize("special", ["bounded", "crashed", "bounded and crashed"])
async def test_jobs_that_are_claimed_one_by_one_are_only_reported(special: str) -> None:
    task, argument = (probes.alone, 0) if "bounded" in special else (probes.echo, "a")
    crashes = int("crashed" in special)
    job_id = await submit(task, argument, crashes=crashes, run_at=db_time(60))
    await submit(task, argument, crashes=crashes, queue="workflows")
    assert not (await take()).one_by_one  # neither is due for this host
    plain = await submit(probes.echo, "a")
    other = await submit(task, argument, crashes=crashes, run_at=db_time(-60))
    found = await take()
    assert (ids(found), found.one_by_one) == ([plain], True)
    assert await statuses(job_id, other) == [Status.PENDING] * 2


async def test_a_crashed_job_of_an_unknown_task_is_not_reported() -> None:
    await submit(probes.echo, "a", task="of.another_release", crashes=1)
    assert not (await take()).one_by_one


@pytest.mark.parametrize("max_running", [None, 1, 9])
async def test_a_single_job_is_claimed_once(max_running: int | None) -> None:
    job_id = await submit(probes.echo, "a")

    async def claim() -> bool:
        step = control(
            lambda connection: claims.claim(connection, job_id, "probes.echo", max_running),
            transaction=max_running is not None,
        )
        return await step is not None

    assert sorted(await asyncio.gather(*(claim() for _ in range(5)))) == [False] * 4 + [True]
    assert (await row_of(job_id)).attempts == 1


async def test_no_more_jobs_are_claimed_at_once_than_may_run() -> None:
    ids = [await submit(probes.echo, "a") for _ in range(20)]

    async def claim(job_id: UUID) -> bool:
        step = control(
            lambda connection: claims.claim(connection, job_id, "probes.echo", 3),
            transaction=True,
        )
        return await step is not None

    assert sum(await asyncio.gather(*map(claim, ids))) == 3
    assert (await statuses(*ids)).count(Status.RUNNING) == 3


async def test_its_statements_read_only_what_is_due_for_this_host() -> None:
    """They use the partial index, so they read no jobs for other hosts or for later."""
    await submit(probes.echo, "a")
    plans = await plans_of(lambda connection: look(connection, WANTED, 10), bitmaps=False)
    for plan in plans:
        assert "jobs_wake_at" not in plan
    if IS_SQLITE:
        see, claim = plans
        assert see.count("INDEX jobs_due (queue=? AND task=? AND run_at>?)") == 1
        assert see.count("INDEX jobs_due (queue=? AND task=? AND run_at<?)") == 2
        assert see.count("INDEX jobs_crashed (queue=? AND run_at<?)") == 1
        assert claim.count("INDEX jobs_due (queue=? AND task=? AND run_at<?)") == 1
    else:
        [both] = plans
        pair = r"Index Cond: \(+queue\S* = \S+ AND \(+task\S* = \S+ AND \(run_at {} statement"
        assert len(re.findall(pair.format(">"), both)) == 1
        assert len(re.findall(pair.format("<="), both)) == 1
        assert len(re.findall(pair.format(r">= \(InitPlan.*\) AND \(run_at <="), both)) == 1
        assert both.count("Scan using jobs_due") == 3
        assert "Seq Scan on jobs" not in both


@pytest.mark.postgresql
async def test_most_looks_begin_where_the_last_one_did() -> None:
    """A look from the start reads all rows that were taken since the oldest transaction began."""
    await submit(probes.echo, "a")
    lookout = Lookout()
    with statements() as made:
        for _ in range(20):
            await control(lambda connection: lookout.look(connection, WANTED, 10))
    began = [values["since"] for _, values in made]
    assert began[0] == EVER
    assert len({*began}) > 2


async def test_what_is_committed_late_is_found() -> None:
    """Earlier looks began after its `run_at`, and before its commit."""
    lookout = Lookout()

    async def taken() -> list[UUID]:
        return ids(await control(lambda connection: lookout.look(connection, WANTED, 10)))

    for number in range(5):
        assert await taken() == []
        late = await submit(probes.echo, "a", run_at=db_time(-100 * number - 1))
        assert await eventually(taken) == [late]


async def test_leases_that_ended_are_found_among_what_runs() -> None:
    """The index by `wake_at` has all waiting jobs, too. No plan uses it, even without the other."""
    take_back = partial(claims.take_back, latest=datetime.max.replace(tzinfo=UTC))
    [plan] = await plans_of(take_back)
    assert "jobs_running" in plan
    [plan] = await plans_of(take_back, without="jobs_running")
    assert "jobs_wake_at" not in plan
