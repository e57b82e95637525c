"""What runs in a process of its own, as the API or a script would: python -m bench.drive WHAT N.

The back end comes from the environment, and the answer goes to standard output as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from importlib import import_module

from app import tasks
from app.core import database
from app.core.database import AsyncSessionLocal
from app.core.logging import configure_logging
from app.jobs import Jobs
from app.jobs.relay import Transport, relaying
from app.jobs.table import Status, jobs
from app.tasks.bench import noop, stamp
from fastapi import FastAPI
from sqlalchemy import func, select


async def noops(number: int, transport: Transport) -> None:
    """Submit them all, and wait until ARQ's queue has them."""
    async with AsyncSessionLocal.begin() as session:
        for _ in range(number):
            await Jobs(session).submit(noop)
    while await transport.redis.zcard("arq:queue") < number:  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)


async def latency(number: int, _: Transport) -> list[float]:
    """Seconds from before submit to the start of the task, each job alone."""
    for _job in range(number):
        await asyncio.sleep(random.uniform(0.05, 0.15))
        async with AsyncSessionLocal.begin() as session:
            await Jobs(session).submit(stamp, time.time())
    done = jobs.c.task == stamp.name, jobs.c.status == Status.SUCCEEDED
    async with AsyncSessionLocal() as session:
        while (await session.scalars(select(func.count()).where(*done))).one() < number:
            await session.rollback()
            await asyncio.sleep(0.05)
        return list((await session.scalars(select(jobs.c.result).where(*done))).all())


async def idle(seconds: int, _: Transport) -> float:
    """The share of a core that a relay with nothing to do takes."""
    await asyncio.sleep(1)
    before = time.process_time()
    await asyncio.sleep(seconds)
    return (time.process_time() - before) / seconds


async def main() -> None:
    drives: dict[str, Callable[[int, Transport], Awaitable[object]]]
    drives = {"noops": noops, "latency": latency, "idle": idle}
    backend = os.environ["BENCH_BACKEND"]
    configure_logging()  # to standard error
    tasks.load()
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[Transport]]
    lifespan = import_module(f"app.core.{backend}").lifespan
    async with (
        lifespan(FastAPI()) as transport,
        relaying({backend: transport}),
    ):
        print(json.dumps(await drives[sys.argv[1]](int(sys.argv[2]), transport)))
    await database.dispose()


if __name__ == "__main__":
    asyncio.run(main())
