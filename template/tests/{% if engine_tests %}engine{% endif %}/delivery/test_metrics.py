"""Failures of hosts and brokers are counted, on each back end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.broker import Broker
from tests.engine.delivery import probes as delivered
from tests.engine.delivery.world import World
from tests.engine.scrapes import counted, scrape, start_scraped
from tests.service import eventually

SUCCEEDED = {"task": "delivered.wait", "outcome": "succeeded"}


@pytest.fixture
def scraped(world: World) -> Iterator[World]:
    """The world, for tests that start processes with metrics."""
    yield world
    world.env.pop("METRICS_PORT", None)
    world.kill_all()


async def test_a_lost_lease_is_counted_by_who_takes_the_job_back(scraped: World) -> None:
    """The host that lost the lease counts no success."""
    first, second = scraped.host(), scraped.host(2)
    scraped.kill(*{"api", first})  # an API may be a host, too, and take the job back
    ports = start_scraped(scraped, first)
    job_id = await scraped.submit(delivered.wait, "lost")
    await scraped.marked("lost runs")
    with scraped.frozen(first):
        scraped.let_end("lost", "next")
        ports |= start_scraped(scraped, second)
        await scraped.row_is(job_id, "succeeded")
        await counted(ports[second], 1, "jobs_outcomes_total", **SUCCEEDED)
        found = await scrape(ports[second])
        assert found.value("jobs_leases_lost_total", task="delivered.wait") == 1
    scraped.kill(second)
    await scraped.row_is(await scraped.submit(delivered.wait, "next"), "succeeded")
    await counted(ports[first], 1, "jobs_outcomes_total", **SUCCEEDED)


async def test_a_bell_that_fails_is_counted(scraped: World, with_broker: Broker) -> None:
    scraped.kill("api")
    port = start_scraped(scraped, "api")["api"]
    name, backend = "jobs_bells_failed_total", {"backend": scraped.backend}
    await counted(port, 0, name, **backend)
    with_broker.kill()
    await scraped.place_order()

    async def failed() -> bool:
        return (await scrape(port)).value(name, **backend) > 0

    await eventually(failed)
