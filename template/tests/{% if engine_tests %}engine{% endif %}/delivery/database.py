"""A database server that a test may stop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Row, text

from devtools import postgresql
from devtools.processes import spawn, stop, wait_until
from devtools.servers import Child
from tests.engine.broker import Broker
from tests.engine.delivery.probes import write_then_wait
from tests.engine.delivery.world import World
from tests.engine.processes import family
from tests.service import ROOT, START_LIMIT


class Database:
    """A PostgreSQL that can be restarted."""

    def __init__(
        self, folder: Path, env: Mapping[str, str] | None = None, *, keep: bool = False
    ) -> None:
        self._process, self.url = postgresql.start(folder, env, keep=keep)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait()

    def start(self) -> None:
        user = "nobody" if os.getuid() == 0 else None
        self._process = spawn(self._arguments(self._process), user=user)
        wait_until(lambda: postgresql.answers(self.url), self._process, START_LIMIT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Each of its processes has a session of its own, and new connections are only queued."""
        for process in (every := family(self._process.pid)):
            process.suspend()
        try:
            yield
        finally:
            for process in every:
                process.resume()

    @staticmethod
    def _arguments(process: Child) -> list[str]:
        assert isinstance(process.args, list)
        return process.args

    def end(self) -> None:
        self.stop()
        stop(self._process)


@asynccontextmanager
async def world_on(
    database: Database, backend: str, broker: Broker | None, folder: Path
) -> AsyncIterator[World]:
    """A world on this database. Both end with the body."""
    env = {**os.environ, "DATABASE_URL": database.url}
    command = [sys.executable, "-m", "app.migrate"]
    await asyncio.to_thread(subprocess.run, command, check=True, cwd=ROOT, env=env)
    world = World(folder / "world", backend, broker, DATABASE_URL=database.url)
    await world.as_it_should_be()
    yield world
    await world.close()
    database.end()


async def taken_from_a_frozen_host(world: World, item: str, within: float) -> Row[Any]:
    """Freeze the host of a job that holds its transaction open until it may end.

    Within so many seconds others can lock its table, and one runs its job.
    """
    job_id = await world.submit(write_then_wait, item)
    await world.marked(f"{item} has written")
    with world.frozen(world.host()):
        world.let_end(item)
        world.start_hosts(2)
        lock = text("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(within), world.engine.begin() as connection:
            await connection.execute(lock)
        return await world.row_is(job_id, "succeeded")
