"""A job runs once, however often it is rung for or submitted, and however many hosts look."""

from __future__ import annotations

import asyncio
from uuid import UUID

import httpx
from sqlalchemy import func, select, update

from app.jobs.table import db_time, jobs
from tests.engine.delivery import probes as delivered
from tests.engine.delivery.world import World


async def test_jobs_that_are_pushed_again_and_again_run_once(healthy: World) -> None:
    """Two hosts and the API ring at the same time."""
    calls = [[f"again {number}", 0.15] for number in range(40)]
    ids = await healthy.submit_many(delivered.work, calls)

    async def push_again() -> None:
        due = update(jobs).where(jobs.c.id.in_(ids), jobs.c.status == "pending")
        while True:
            async with healthy.engine.begin() as connection:
                await connection.execute(due.values(wake_at=db_time(0), pushes=0))
            await asyncio.sleep(0.1)

    pushing = asyncio.create_task(push_again())
    await healthy.all_are("succeeded", ids)
    pushing.cancel()
    async with healthy.engine.connect() as connection:
        tries = select(func.max(jobs.c.attempts)).where(jobs.c.id.in_(ids))
        assert (await connection.execute(tries)).scalar_one() == 1
    assert [await healthy.effects(str(item)) for item, _ in calls] == [1] * 40


async def test_one_key_at_once_is_one_job(healthy: World) -> None:
    async def submit() -> UUID:
        return await healthy.submit(delivered.work, "key", 0.2, key="one")

    ids = set(await asyncio.gather(*(submit() for _ in range(5))))
    assert len(ids) == 1
    await healthy.row_is(ids.pop(), "succeeded")
    assert await healthy.effects("key") == 1


async def test_one_idempotency_key_at_once_is_one_order(healthy: World) -> None:
    async def order(quantity: int) -> httpx.Response:
        body, headers = {"item": "once", "quantity": quantity}, {"Idempotency-Key": "an order"}
        return await healthy.client.post("/orders", json=body, headers=headers)

    answers = await asyncio.gather(*(order(1) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [201] * 5
    placed = [answer.json()["data"] for answer in answers]
    assert len({(data["order"]["id"], data["job_id"]) for data in placed}) == 1
    assert await healthy.effects("once") == 1
    assert (await order(2)).status_code == 422


async def test_max_running_1_holds_over_all_hosts(healthy: World) -> None:
    ids = await healthy.submit_many(delivered.alone, [[f"alone {n}"] for n in range(5)])
    await healthy.all_are("succeeded", ids)
