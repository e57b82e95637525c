"""Hosts that are killed or frozen, or that their jobs kill."""

from __future__ import annotations

from tests.engine import probes
from tests.engine.delivery import probes as delivered
from tests.engine.delivery.world import World
from tests.service import eventually


async def test_jobs_of_a_killed_host_run_again_and_take_effect_once(world: World) -> None:
    jobs = {
        "killed": await world.submit(delivered.wait, "killed"),
        "killed sync": await world.submit(delivered.wait_sync, "killed sync"),
    }
    for item in jobs:
        await world.marked(f"{item} runs")
    world.kill(world.host())
    world.let_end(*jobs)
    world.start_hosts()
    for item, job_id in jobs.items():
        row = await world.row_is(job_id, "succeeded", limit=60)
        assert (row.attempts, row.crashes, await world.effects(item)) == (2, 1, 1)


async def test_a_host_that_wakes_after_its_lease_changes_nothing(world: World) -> None:
    ended = await world.submit(delivered.wait, "ended")
    running = await world.submit(delivered.wait_sync, "running")
    for item in ("ended", "running"):
        await world.marked(f"{item} runs")

    async def runs_again() -> bool:
        row = await world.row(running)
        return bool((row.status, row.attempts) == ("running", 2))

    with world.frozen(world.host()):
        world.let_end("ended")
        world.start_hosts(2)
        before = await world.row_is(ended, "succeeded")
        await eventually(runs_again)
    world.let_end("running")
    # The old host has time to write while this job runs.
    await world.row_is(await world.submit(probes.work, 1.0), "succeeded")
    assert await world.row(ended) == before
    after = await world.row_is(running, "succeeded")
    for item, row in (("ended", before), ("running", after)):
        assert (row.attempts, row.result, await world.effects(item)) == (2, 2, 1)


async def test_a_job_that_kills_its_hosts_is_dead_and_its_neighbours_are_not(world: World) -> None:
    killer = await world.submit(delivered.kill)
    calls = [(f"neighbour {number}", 0.5) for number in range(9)]
    neighbours = await world.submit_many(delivered.work, calls)
    async with world.supervised():
        row = await world.row_is(killer, "dead", limit=60)
        await world.all_are("succeeded", neighbours, limit=60)
    assert row.error.startswith("WorkerLost")
    assert [await world.effects(item) for item, _ in calls] == [1] * 9
