"""pgqueuer with asyncpg, ten jobs at once. It requires batches of at most half of that."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from peers import work
from pgqueuer.models import Job
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries

Submit = Callable[[str, list[dict[str, str]]], Awaitable[None]]


async def noop(_: Job) -> None:
    await work.noop()


async def process_order(job: Job) -> None:
    await work.process_order(json.loads(job.payload or b"{}")["order_id"])


async def install() -> None:
    async with asyncpg.create_pool(work.DSN) as pool:
        await Queries.from_asyncpg_pool(pool).install()


@asynccontextmanager
async def client() -> AsyncIterator[Submit]:
    async with asyncpg.create_pool(work.DSN, min_size=1) as pool:
        queries = Queries.from_asyncpg_pool(pool)

        async def submit_many(what: str, arguments: list[dict[str, str]]) -> None:
            number = len(arguments)
            payloads: Any = [json.dumps(each).encode() for each in arguments]
            await queries.enqueue([what] * number, payloads, [0] * number)

        yield submit_many


async def work_on() -> None:
    connection = await asyncpg.connect(work.DSN)
    manager = QueueManager(Queries.from_asyncpg_connection(connection))
    manager.entrypoint("noops")(noop)
    manager.entrypoint("orders")(process_order)
    await manager.run(batch_size=work.CONCURRENCY // 2, max_concurrent_tasks=work.CONCURRENCY)
