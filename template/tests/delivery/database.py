"""A database server that a test may take away."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from devtools import postgresql
from devtools.processes import spawn, stop, wait_until
from devtools.servers import Child


class Database:
    """A PostgreSQL that can be restarted."""

    def __init__(self, folder: Path) -> None:
        self._process, self.url = postgresql.start(folder)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait()

    def start(self) -> None:
        user = "nobody" if os.getuid() == 0 else None
        self._process = spawn(self._arguments(self._process), user=user)
        wait_until(lambda: postgresql.answers(self.url), self._process, 20)

    @staticmethod
    def _arguments(process: Child) -> list[str]:
        assert isinstance(process.args, list)
        return process.args

    def end(self) -> None:
        self.stop()
        stop(self._process)
