# mypy: disable-error-code="import-not-found,untyped-decorator"
"""Submit jobs, half of them by HTTP, until standard input ends. A line there submits a `hold`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any, TextIO

import httpx
from app import tasks
from app.core.database import AsyncSessionLocal, dispose
from app.jobs import Jobs
from app.tasks.deployed import hold, note, work

RATE = 50  # a second
BACKLOG = 250  # jobs that may wait, so that a machine that is too slow for RATE passes, too
CLIENTS = 20  # submit at the same time
PATIENCE = 60  # seconds within which an API or the database must accept a job


class Load:
    """Submits jobs, and writes a line for each accepted one into the file ACCEPTED."""

    def __init__(self, client: httpx.AsyncClient, runs: TextIO) -> None:
        self._client, self._clients = client, asyncio.Semaphore(CLIENTS)
        self._runs, self._begun = runs, 0

    async def no_backlog(self, asked: int) -> None:
        """Wait until at most BACKLOG of the submitted jobs have not begun."""
        while asked - self._count_begun() > BACKLOG:
            await asyncio.sleep(0.1)

    def _count_begun(self) -> int:
        self._begun += self._runs.read().count("\n")
        return self._begun

    async def one(self, number: int) -> None:
        async with self._clients, asyncio.timeout(PATIENCE):
            if number % 2:
                await self.post(f"post {number}")
            elif number % 4:
                await self.submit(work, f"work {number}")
            else:
                await self.submit(note, f"note {number}")

    async def post(self, item: str) -> None:
        """Post an order as a load balancer does: if a server goes away, try another one."""
        while True:
            port = random.choice(Path(os.environ["PORTS"]).read_text().split())
            try:
                answer = await self._client.post(
                    f"http://127.0.0.1:{port}/orders",
                    json={"item": item, "quantity": 1},
                    headers={"Idempotency-Key": item},
                )
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            answer.raise_for_status()
            return self._accepted(item, answer.json()["data"]["job_id"], port)

    async def submit(self, task: Any, item: str) -> None:
        """Submit as a script does, which rings no bell."""
        async with AsyncSessionLocal() as session:
            job = await Jobs(session).submit(task, item)
            await session.commit()
        self._accepted(item, str(job.id), "script")

    def _accepted(self, item: str, job_id: str, by: str) -> None:
        line = {"item": item, "job": job_id, "by": by, "at": time.time()}
        with Path(os.environ["ACCEPTED"]).open("a") as accepted:
            accepted.write(json.dumps(line) + "\n")

    async def obey(self) -> None:
        """Submit a `hold` for each line of standard input; return at its end."""
        for number in count():
            if not await asyncio.to_thread(sys.stdin.readline):
                return
            await self.submit(hold, f"hold {number}")


async def submit_all(load: Load, group: asyncio.TaskGroup) -> None:
    orders = group.create_task(load.obey())
    for number in count():
        if orders.done():
            return
        group.create_task(load.one(number))
        await load.no_backlog(number)
        await asyncio.sleep(1 / RATE)


async def main() -> None:
    tasks.load()
    runs = Path(os.environ["RUNS"])
    runs.touch()
    async with httpx.AsyncClient(timeout=10) as client, asyncio.TaskGroup() as group:
        with runs.open() as opened:
            await submit_all(Load(client, opened), group)
    await dispose()


if __name__ == "__main__":
    asyncio.run(main())
