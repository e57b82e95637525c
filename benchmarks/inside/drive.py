"""Submit jobs in a separate process, as an API or a script does: python -m bench.drive WHAT N.

The environment names the back end, and the answer goes to standard output as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from importlib import import_module
from typing import Any
from uuid import UUID, uuid4

from app import tasks
from app.core import database
from app.core.database import AsyncSessionLocal
from app.core.logging import configure_logging
from app.jobs import Jobs
from app.jobs.relay import Bell, Message, relaying
from app.jobs.table import jobs
from app.models import Order
from app.tasks.bench import connect, connect_in_thread, hold, noop, stamp, where
from app.tasks.orders import process_order
from fastapi import FastAPI
from sqlalchemy import func, insert, select

WARM = 10  # jobs before the timed ones: they open connections and prepare statements


async def noops(number: int) -> float:
    """Submit no-ops; returns the seconds that it took."""
    async with AsyncSessionLocal.begin() as session:
        await Jobs(session).submit_many(noop, [()] * WARM)
    began = time.monotonic()
    async with AsyncSessionLocal.begin() as session:
        await Jobs(session).submit_many(noop, [()] * (number - WARM))
    return time.monotonic() - began


async def orders(number: int) -> None:
    rows = [{"id": uuid4(), "item": "tea", "quantity": 2} for _ in range(number)]
    async with AsyncSessionLocal.begin() as session:
        await session.execute(insert(Order), rows)
        await Jobs(session).submit_many(process_order, [(row["id"],) for row in rows])


async def held(seconds: int) -> None:
    async with AsyncSessionLocal.begin() as session:
        await Jobs(session).submit(hold, seconds)


async def connecting(number: int) -> None:
    async with AsyncSessionLocal.begin() as session:
        await Jobs(session).submit_many(connect, [()] * number)
        await Jobs(session).submit_many(connect_in_thread, [()] * number)


async def latency(number: int) -> list[float]:
    """The seconds from before each submit to the start of its task. Only one job runs at a time."""
    ids = []
    for _job in range(number):
        await asyncio.sleep(random.uniform(0.05, 0.15))
        async with AsyncSessionLocal.begin() as session:
            ids.append((await Jobs(session).submit(stamp, time.time())).id)
    await _end_of(ids)
    async with AsyncSessionLocal() as session:
        return list(await session.scalars(select(jobs.c.result).where(jobs.c.id.in_(ids))))


async def burst(number: int) -> float:
    """Submit many jobs to idle workers; returns the time of the commit."""
    return await _burst(number, 0)


async def short_burst(number: int) -> float:
    return await _burst(number, 0.02)


async def _burst(number: int, seconds: float) -> float:
    async with AsyncSessionLocal.begin() as session:
        made = await Jobs(session).submit_many(where, [(seconds,)] * number)
    committed = time.time()
    await _end_of([made[-1].id])
    return committed


async def idle(seconds: int) -> float:
    """The share of a core that an idle relay uses."""
    await asyncio.sleep(1)
    before = time.process_time()
    await asyncio.sleep(seconds)
    return (time.process_time() - before) / seconds


async def _end_of(ids: Sequence[UUID]) -> None:
    ended = select(func.count()).where(jobs.c.id.in_(ids), jobs.c.finished_at.is_not(None))
    async with asyncio.timeout(90), AsyncSessionLocal() as session:
        while (await session.scalars(ended)).one() < len(ids):
            await session.rollback()
            await asyncio.sleep(0.05)


class Heard:
    """A bell that waits until each message that a row notes is sent."""

    def __init__(self, bell: Bell) -> None:
        self._bell, self._unsent = bell, 0

    async def ring(self, messages: Sequence[Message]) -> None:
        await self._bell.ring(messages)
        self._unsent -= sum(message.noted for message in messages)

    async def ping(self) -> None:
        await self._bell.ping()

    def notes(self, queue: str, number: int) -> int:
        noted = self._bell.notes(queue, number)
        self._unsent += noted
        return noted

    async def all(self) -> None:
        async with asyncio.timeout(30):
            while self._unsent:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def ringing() -> AsyncIterator[None]:
    """Ring the back end's bell after each commit, as the API does."""
    backend = os.environ["BENCH_BACKEND"]
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[Any]]
    lifespan = import_module(f"app.core.{backend}").lifespan
    async with lifespan(FastAPI()) as bell:
        if backend == "celery":
            await bell.count()  # the API counts the room in the queues from its start, too
        async with relaying({backend: (heard := Heard(bell))}):
            yield
            await heard.all()


ROWS: dict[str, Callable[[int], Awaitable[object]]]
ROWS = {"noops": noops, "orders": orders, "hold": held, "connecting": connecting}
RINGING: dict[str, Callable[[int], Awaitable[object]]]
RINGING = {"latency": latency, "burst": burst, "short_burst": short_burst, "idle": idle}


async def main() -> None:
    what, number = sys.argv[1], int(sys.argv[2])
    configure_logging()  # to standard error
    tasks.load()
    # With Celery, the API sends messages as long as the queues have room for them.
    rings = what in RINGING or os.environ["BENCH_BACKEND"] == "celery"
    async with ringing() if rings else nullcontext():
        print(json.dumps(await (ROWS | RINGING)[what](number)))
    await database.dispose()


if __name__ == "__main__":
    asyncio.run(main())
