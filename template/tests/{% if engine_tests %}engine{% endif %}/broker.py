"""A broker for tests that freeze it or delete its data."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from devtools import servers
from devtools.processes import free_port, listens

KILL_LIMIT = 10  # seconds


def away(variable: str, password: str) -> str:
    """An address at which no broker listens."""
    server = f"app:{password}@127.0.0.1:{free_port()}"
    return urlsplit(os.environ[variable])._replace(netloc=server).geturl()


class User(Protocol):
    def kill_all(self) -> None: ...


class Broker:
    """A broker that keeps its port. Its data is lost when it is killed."""

    def __init__(self, variable: str, folder: Path) -> None:
        self.variable, self._folder = variable, folder
        self._port = free_port()
        self._lives = 0
        self._process: servers.Child | None = None
        self._user: User | None = None

    @property
    def env(self) -> dict[str, str]:
        """Its address, even while it doesn't run: that of the run's broker, with another port."""
        run = urlsplit(os.environ[self.variable])
        user, at, _ = run.netloc.rpartition("@")
        return {self.variable: run._replace(netloc=f"{user}{at}127.0.0.1:{self._port}").geturl()}

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    async def start(self) -> None:
        if self._process is None:
            data = self._folder / str(self._lives)
            start = servers.START[self.variable]
            self._process, _ = await asyncio.to_thread(start, data, self._port)

    async def start_for(self, user: User) -> None:
        """Kill the processes of the user before this one: they would take its messages."""
        if self._user and self._user is not user:
            self._user.kill_all()
        self._user = user
        await self.start()

    def signal(self, number: signal.Signals) -> None:
        assert self._process
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Kill it, and wait until its port is free. Its data is lost.

        What listens may be a child of the process that was started, and end later than that.
        """
        if self._process:
            self.signal(signal.SIGKILL)
            self._process.wait()
            limit = time.monotonic() + KILL_LIMIT
            while listens(self._port):
                assert time.monotonic() < limit, f"port {self._port} is still in use"
                time.sleep(0.01)
            self._process = None
            self._lives += 1

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)
