"""Packets to PostgreSQL vanish on existing connections. New connections work.

This happens if a firewall forgets connections, or if a server's address moves to another server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.engine.broker import Broker
from tests.engine.delivery.firewall import dropping
from tests.engine.delivery.proxied import Proxied

pytestmark = pytest.mark.postgresql


@pytest.fixture
async def proxied(
    backend: str, own_broker: Broker | None, tmp_path: Path
) -> AsyncIterator[Proxied]:
    world = Proxied(tmp_path / "world", backend, own_broker)
    yield world
    await world.close()


@pytest.fixture
async def hasty(proxied: Proxied) -> Proxied:
    await proxied.be_hasty()
    return proxied


async def test_jobs_run_soon_after_connections_were_forgotten(hasty: Proxied) -> None:
    """The proxy still accepts bytes, so only the service's own limits end its waits."""
    await hasty.get_busy("forgotten")
    for _ in range(2):
        hasty.proxy.forget()
        await hasty.runs_jobs()
    await hasty.each_ran_once(limit=60)


async def test_the_api_answers_soon_after_connections_were_forgotten(proxied: Proxied) -> None:
    proxied.start("api")
    for _ in range(2):
        assert await proxied.burst()
        proxied.proxy.forget()
        await proxied.answers()


async def test_a_service_is_well_soon_after_packets_are_dropped(hasty: Proxied) -> None:
    """TCP repeats each packet, because none is acknowledged."""
    assert await hasty.burst()
    await hasty.get_busy("dropped")
    with dropping(hasty.proxy.port, hasty.proxy.clients):
        await asyncio.gather(hasty.runs_jobs(), hasty.answers())
        await hasty.each_ran_once(limit=60)


@pytest.mark.parametrize("sender", ["lives", "is_killed"])
async def test_what_comes_through_after_a_minute_changes_nothing(
    proxied: Proxied, sender: str
) -> None:
    await proxied.as_it_should_be()
    await proxied.get_busy("first")
    proxied.proxy.forget()
    await proxied.runs_jobs()
    await proxied.get_busy("second")
    await asyncio.sleep(30)
    if sender == "is_killed":
        proxied.kill(proxied.host())
        await proxied.as_it_should_be()
    await asyncio.sleep(30)
    proxied.proxy.remember()
    await proxied.lets_go()
    await asyncio.gather(proxied.runs_jobs(), proxied.answers())
    await proxied.each_ran_once(limit=60)
