"""After SIGTERM short jobs end, the others are handed back, and the exit code is 0."""

from __future__ import annotations

from app.jobs.table import jobs
from tests.engine.delivery import probes as delivered
from tests.engine.delivery.world import World
from tests.service import API_ENDED


async def test_a_stop_lets_short_jobs_end_and_hands_the_rest_back_uncounted(world: World) -> None:
    short = await world.submit(delivered.work, "short", 0.5)
    rest = {
        "rest": await world.submit(delivered.work, "rest", 2.5),
        "stuck": await world.submit(delivered.work_sync, "stuck", 60),
    }
    for item in ("short", *rest):
        await world.marked(f"{item} runs")
    assert world.stop(world.host())[0] in (0, API_ENDED)
    row = await world.row(short)
    assert (row.status, row.attempts, await world.effects("short")) == ("succeeded", 1, 1)
    for job_id in rest.values():
        row = await world.row(job_id)
        assert (row.status, row.crashes, row.max_attempts) == ("pending", 0, 6)
    world.start_hosts()
    row = await world.row_is(rest["rest"], "succeeded")
    assert (row.attempts, row.max_attempts, await world.effects("rest")) == (2, 6, 1)


async def test_a_sync_job_that_cannot_be_stopped_does_not_hold_a_stop_up(world: World) -> None:
    job_id = await world.submit(delivered.work_sync, "endless", 60)
    await world.marked("endless runs")
    assert world.stop(world.host())[0] in (0, API_ENDED)
    row = await world.row(job_id)
    assert (row.status, row.crashes, row.attempts) == ("pending", 0, 1)
    async with world.engine.begin() as connection:
        await connection.execute(jobs.delete().where(jobs.c.id == job_id))
