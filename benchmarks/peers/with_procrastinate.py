"""procrastinate, with one worker and a concurrency of ten."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from peers import work
from procrastinate import App, PsycopgConnector

Submit = Callable[[str, list[dict[str, str]]], Awaitable[None]]

app = App(connector=PsycopgConnector(conninfo=work.DSN, max_size=work.CONCURRENCY))
TASKS: dict[str, Any] = {
    "noops": app.task(name="noop")(work.noop),
    "orders": app.task(name="process_order")(work.process_order),
}


async def install() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


@asynccontextmanager
async def client() -> AsyncIterator[Submit]:
    async with app.open_async():

        async def submit_many(what: str, arguments: list[dict[str, str]]) -> None:
            await TASKS[what].batch_defer_async(*arguments)

        yield submit_many


async def work_on() -> None:
    async with app.open_async():
        await app.run_worker_async(concurrency=work.CONCURRENCY)
