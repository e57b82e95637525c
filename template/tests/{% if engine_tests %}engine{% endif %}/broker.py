"""A broker for tests that freeze it or delete its data."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from devtools import servers
from devtools.processes import free_port


class Broker:
    """A broker that keeps its port. Its data is lost when it is killed."""

    def __init__(self, variable: str, folder: Path) -> None:
        self.variable, self._folder = variable, folder
        self._port = free_port()
        self._lives = 0
        self._process: servers.Child | None = None

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

    def signal(self, number: signal.Signals) -> None:
        assert self._process
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Kill it. Its data is lost."""
        if self._process:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
            self._lives += 1

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)
