from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import get_settings
from app.core.database import AsyncSessionLocal
from app.jobs import Jobs, task
from app.jobs.contract import Task
from app.jobs.runner import Runner
from app.jobs.table import Status, clock, jobs
from app.models import Order
from app.tasks.orders import process_order
from tests import probes
from tests.service import eventually

LEASE = timedelta(seconds=get_settings().lease)


async def submit(what: Task[..., Any, Any], *args: Any) -> UUID:
    async with AsyncSessionLocal() as session:
        job = await Jobs(session).submit_named(what, what.dump(*args))
        await session.commit()
        return job.id


async def row_of(job_id: UUID) -> Row[Any]:
    async with AsyncSessionLocal() as session:
        return await Jobs(session).get(job_id)


async def run(runner: Runner, what: Task[..., Any, Any], *args: Any) -> Row[Any]:
    """Submit a job and run it for as long as it is pending, as the relay would have it."""
    job_id = await submit(what, *args)
    while (row := await row_of(job_id)).status == Status.PENDING:
        await runner.run(what.name, job_id)
    return row


async def orders_of(item: str) -> int:
    async with AsyncSessionLocal() as session:
        count = select(func.count()).select_from(Order).where(Order.item == item)
        return (await session.scalars(count)).one()


async def test_async_and_sync_tasks_succeed(runner: Runner) -> None:
    for each in (probes.echo, probes.echo_sync):
        row = await run(runner, each, "hello")
        assert (row.status, row.result, row.attempts) == (Status.SUCCEEDED, "hello", 1)
        assert row.args is None
        assert row.started_at <= row.finished_at


async def test_a_write_commits_with_the_outcome(runner: Runner) -> None:
    item = str(uuid4())
    row = await run(runner, probes.place_order, item)
    assert (row.status, await orders_of(item)) == (Status.SUCCEEDED, 1)


async def test_a_write_rolls_back_with_a_failure(runner: Runner) -> None:
    item = str(uuid4())
    row = await run(runner, probes.order_then_fail, item)
    assert (row.status, row.attempts, await orders_of(item)) == (Status.DEAD, 2, 0)
    assert row.error == "RuntimeError: after the write"
    assert row.args == {"item": item}


@pytest.mark.parametrize(("probe", "args"), [(probes.flaky, [2]), (probes.later, [])])
async def test_a_failure_is_tried_again(
    runner: Runner, probe: Task[..., Any, Any], args: list[Any]
) -> None:
    row = await run(runner, probe, *args)
    assert (row.status, row.error) == (Status.SUCCEEDED, None)
    assert row.result == row.attempts > 1


async def test_tries_are_used_up(runner: Runner) -> None:
    row = await run(runner, probes.flaky, 9)
    assert (row.status, row.attempts, row.error) == (Status.DEAD, 3, "ConnectionError: try 3")


async def test_what_cannot_succeed_is_dead_at_once(runner: Runner) -> None:
    row = await run(runner, probes.hopeless)
    assert (row.status, row.attempts) == (Status.DEAD, 1)
    row = await run(runner, probes.not_json)
    assert (row.status, row.attempts) == (Status.DEAD, 1)
    assert "not JSON" in row.error


@pytest.mark.parametrize("probe", [probes.slow, probes.slow_sync])
async def test_a_try_is_bounded(runner: Runner, probe: Task[..., Any, Any]) -> None:
    row = await run(runner, probe, 1.0)
    assert (row.status, row.error) == (Status.DEAD, "TimeoutError: ran longer than 0.3 s")


async def test_a_duplicate_message_runs_nothing(runner: Runner) -> None:
    item = str(uuid4())
    job_id = await submit(probes.place_order, item)
    await asyncio.gather(*(runner.run("probes.place_order", job_id) for _ in range(3)))
    await runner.run("probes.place_order", job_id)
    assert ((await row_of(job_id)).attempts, await orders_of(item)) == (1, 1)


async def test_a_job_that_is_not_due_is_not_run(runner: Runner) -> None:
    job_id = await submit(probes.echo, "a")
    async with AsyncSessionLocal() as session:
        await session.execute(update(jobs).where(jobs.c.id == job_id).values(run_at=clock(60)))
        await session.commit()
    await runner.run("probes.echo", job_id)
    assert (await row_of(job_id)).status == Status.PENDING


async def test_a_lost_lease_fences_the_outcome(runner: Runner) -> None:
    """Another worker's claim in the middle: what this try wrote must be gone."""
    item = str(uuid4())
    job_id = await submit(probes.place_order, item)
    stolen = update(jobs).where(jobs.c.id == job_id).values(attempts=jobs.c.attempts + 1)

    @task(name=f"probes.stolen {job_id}")
    async def stolen_meanwhile(db: AsyncSession) -> None:
        async with AsyncSessionLocal() as other:
            await other.execute(stolen)
            await other.commit()
        db.add(Order(item=item, quantity=1))

    async with AsyncSessionLocal() as session:
        renamed = update(jobs).where(jobs.c.id == job_id)
        await session.execute(renamed.values(task=stolen_meanwhile.name, args={}))
        await session.commit()
    await runner.run(stolen_meanwhile.name, job_id)
    row = await row_of(job_id)
    assert (row.status, row.attempts, await orders_of(item)) == (Status.RUNNING, 2, 0)


async def test_a_long_job_keeps_its_lease(runner: Runner) -> None:
    job_id = await submit(probes.work, 30)
    running = asyncio.create_task(runner.run("probes.work", job_id))

    async def extended() -> bool:
        row = await row_of(job_id)
        return bool(row.wake_at and row.started_at and row.wake_at > row.started_at + LEASE)

    try:
        await eventually(extended)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_stop_hands_the_job_back_uncounted(runner: Runner) -> None:
    job_id = await submit(probes.work, 30)
    running = asyncio.create_task(runner.run("probes.work", job_id))
    await status_is(job_id, Status.RUNNING)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    row = await row_of(job_id)
    assert (row.status, row.attempts, row.max_attempts) == (Status.PENDING, 1, 4)


async def test_a_cancelled_job_is_stopped(runner: Runner) -> None:
    job_id = await submit(probes.work, 30)
    running = asyncio.create_task(runner.run("probes.work", job_id))
    await status_is(job_id, Status.RUNNING)
    async with AsyncSessionLocal() as session:
        await Jobs(session).cancel(job_id)
        await session.commit()
    await running
    assert (await row_of(job_id)).status == Status.CANCELLED


async def test_max_running_holds_over_several_workers(runner: Runner) -> None:
    first, second = await submit(probes.alone, 30), await submit(probes.alone, 0)
    running = asyncio.create_task(runner.run("probes.alone", first))
    await status_is(first, Status.RUNNING)
    await Runner(1).run("probes.alone", second)
    assert (await row_of(second)).status == Status.PENDING
    async with AsyncSessionLocal() as session:
        await Jobs(session).cancel(first)
        await session.commit()
    await running
    await Runner(1).run("probes.alone", second)
    assert (await row_of(second)).status == Status.SUCCEEDED


async def test_jobs_that_crashed_too_often_run_one_at_a_time(runner: Runner) -> None:
    """One of them kills the workers; the others must not be there when it does."""
    suspects = [await submit(probes.work, 30), await submit(probes.work, 30)]
    fresh = await submit(probes.echo, "a")
    async with AsyncSessionLocal() as session:
        crashed = update(jobs).where(jobs.c.id.in_(suspects))
        await session.execute(crashed.values(crashes=get_settings().max_crashes - 1))
        await session.commit()
    first = asyncio.create_task(runner.run("probes.work", suspects[0]))
    await status_is(suspects[0], Status.RUNNING)
    await runner.run("probes.work", suspects[1])
    assert (await row_of(suspects[1])).status == Status.PENDING
    await runner.run("probes.echo", fresh)
    assert (await row_of(fresh)).status == Status.SUCCEEDED
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(runner.run("probes.work", suspects[1]))
    await status_is(suspects[1], Status.RUNNING)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)


async def test_an_unknown_task_is_left_for_others(runner: Runner) -> None:
    job_id = await submit(probes.echo, "a")
    await runner.run("probes.of_another_release", job_id)
    assert (await row_of(job_id)).status == Status.PENDING


async def test_an_order_that_is_gone_is_not_tried_again(runner: Runner) -> None:
    row = await run(runner, process_order, uuid4())
    assert (row.status, row.attempts) == (Status.DEAD, 1)


async def status_is(job_id: UUID, status: Status) -> None:
    async def reached() -> bool:
        return bool((await row_of(job_id)).status == status)

    await eventually(reached)
