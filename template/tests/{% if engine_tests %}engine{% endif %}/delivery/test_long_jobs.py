"""Jobs that take longer than a lease, on hosts without faults."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from tests.engine import probes
from tests.engine.broker import Broker
from tests.engine.delivery import probes as delivered
from tests.engine.delivery.world import World
from tests.service import START_LIMIT, eventually

SLOTS = 3


async def test_a_job_that_writes_and_then_works_for_longer_than_its_lease_runs_once(
    healthy: World,
) -> None:
    """On SQLite, which has one writer, others wait until the job has ended."""
    lease = float(healthy.env["LEASE"])
    job_id = await healthy.submit(delivered.write_first, "first", lease + 2)
    await healthy.marked("first has written")
    ordered = await healthy.place_order()
    await healthy.row_is(ordered, "succeeded")
    row = await healthy.row_is(job_id, "succeeded")
    assert (row.attempts, await healthy.effects("first")) == (1, 1)


async def test_a_job_of_ten_leases_runs_once_and_others_go_on(healthy: World, long: UUID) -> None:
    await healthy.row_is(await healthy.submit(probes.echo_sync, "beside"), "succeeded")
    row = await healthy.row_is(long, "succeeded", limit=90)
    assert (row.attempts, await healthy.effects("long")) == (1, 1)
    assert (row.finished_at - row.started_at).total_seconds() >= 10 * float(healthy.env["LEASE"])


async def test_a_host_whose_slots_are_all_busy_looks_alive(
    backend: str, own_broker: Broker | None, tmp_path: Path
) -> None:
    world = World(tmp_path, backend, own_broker, MAX_JOBS=str(SLOTS))
    await world.as_it_should_be()
    ids = await world.submit_many(delivered.wait_sync, [["busy"]] * 2 * SLOTS)

    async def full() -> bool:
        return [(await world.row(job_id)).status for job_id in ids].count("running") == SLOTS

    async def signs() -> set[Path]:
        return set(world.heartbeats(world.host()).glob("*"))

    await eventually(full, START_LIMIT)
    for sign in (found := await eventually(signs)):
        sign.unlink()

    async def all_are_back() -> bool:
        return found <= await signs()

    await eventually(all_are_back)
    assert await full()
    world.let_end("busy")
    await world.all_are("succeeded", ids)
    await world.close()
