"""Jobs that take longer than their lease, on hosts that are well."""

from __future__ import annotations

from uuid import UUID

from tests import probes
from tests.delivery import probes as delivered
from tests.delivery.world import World


async def test_a_job_that_writes_and_then_works_for_longer_than_its_lease_runs_once(
    healthy: World,
) -> None:
    """On SQLite, which has one writer, others wait until it is done, and then go on."""
    lease = float(healthy.env["LEASE"])
    job_id = await healthy.submit(delivered.write_first, "first", lease + 2)
    await healthy.marked("first has written")
    ordered = await healthy.place_order()
    await healthy.row_is(ordered, "succeeded")
    row = await healthy.row_is(job_id, "succeeded")
    assert (row.attempts, await healthy.effects("first")) == (1, 1)


async def test_a_job_of_ten_leases_runs_once_and_others_go_on(healthy: World, long: UUID) -> None:
    await healthy.row_is(await healthy.submit(probes.echo_sync, "beside"), "succeeded")
    row = await healthy.row_is(long, "succeeded", limit=40)
    assert (row.attempts, await healthy.effects("long")) == (1, 1)
    assert (row.finished_at - row.started_at).total_seconds() >= 10 * float(healthy.env["LEASE"])
