"""Keeps all slots of a host busy, so that new jobs and their messages wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.engine.delivery.probes import wait_sync
from tests.engine.delivery.world import World


@asynccontextmanager
async def all_slots_busy(world: World, name: str) -> AsyncIterator[list[str]]:
    """Keep the slots busy until the body ends. Yields the items of the jobs' orders."""
    items = [f"{name} busy {number}" for number in range(world.slots)]
    ids = await world.submit_many(wait_sync, [[item] for item in items])
    await world.all_are("running", ids)
    yield items
    world.let_end(*items)
    await world.all_are("succeeded", ids, limit=120)
