"""oban-py, with one queue that runs ten jobs at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from oban import Job, Oban, worker
from oban.schema import install as install_schema
from peers import work

Submit = Callable[[str, list[dict[str, str]]], Awaitable[None]]


class Noop:
    async def process(self, _: Job) -> None:
        await work.noop()


class ProcessOrder:
    async def process(self, job: Job) -> None:
        await work.process_order(job.args["order_id"])


WORKERS = {"noops": worker()(Noop), "orders": worker()(ProcessOrder)}


async def install() -> None:
    pool = await Oban.create_pool(work.DSN)
    await install_schema(pool)
    await pool.close()


@asynccontextmanager
async def client() -> AsyncIterator[Submit]:
    pool = await Oban.create_pool(work.DSN)
    oban = Oban(pool=pool)

    async def submit_many(what: str, arguments: list[dict[str, str]]) -> None:
        await oban.enqueue_many([WORKERS[what].new(each) for each in arguments])

    yield submit_many
    await pool.close()


async def work_on() -> None:
    pool = await Oban.create_pool(work.DSN)
    async with Oban(pool=pool, queues={"default": work.CONCURRENCY}):
        await asyncio.Event().wait()
