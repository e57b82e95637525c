"""Schedules of tasks with `max_running=1` that take longer than the time to the next tick."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy import Row, select

from app.jobs.table import jobs
from tests.engine.api.schedule_calls import call, create
from tests.engine.schedules.clocks import Clocks

SECONDS = 1.5  # the length of a job


async def test_never_two_run_at_once_and_ticks_queue_or_are_skipped_as_declared(
    three: Clocks,
) -> None:
    trigger = {"kind": "interval", "seconds": 1}
    declared = {"trigger": trigger, "args": {"seconds": SECONDS}}
    for schedule_id, overlap in (("queued", "queue"), ("skipped", "skip")):
        task = f"scheduled.{schedule_id}"
        await create(three, id=schedule_id, task=task, overlap=overlap, **declared)
    await three.every_tick(6)
    for schedule_id in ("queued", "skipped"):
        url = f"/{schedule_id}"
        assert (await call(three, "PATCH", url, revision=1, paused=True)).status_code == 200
    await three.every_tick(1)
    queued, skipped = await ended(three, "queued"), await ended(three, "skipped")
    seconds = (tick.at.timestamp() for tick in await three.ticks("queued"))
    assert all(after - before == 1 for before, after in pairwise(seconds))
    assert all(after.created_at >= before.finished_at for before, after in pairwise(skipped))
    assert len(queued) >= 6 > 5 > len(skipped) > 1


async def ended(three: Clocks, schedule_id: str) -> Sequence[Row[Any]]:
    """Wait until its jobs have ended; returns them by their starts. No two ran at once."""
    found = select(jobs).where(jobs.c.key.startswith(f"schedule:{schedule_id}:"))
    async with three.engine.connect() as connection:
        ids = [row.id for row in (await connection.execute(found)).all()]
    await three.all_are("succeeded", ids, limit=60)
    async with three.engine.connect() as connection:
        rows = (await connection.execute(found.order_by(jobs.c.started_at))).all()
    assert all(after.started_at >= before.finished_at for before, after in pairwise(rows))
    return rows
