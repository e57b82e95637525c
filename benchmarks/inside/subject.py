"""A subject of measures: the rendered service, the control or a peer, on its own database."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
from app.core.database import sync_url
from bench.processes import wait_for
from bench.progress import say
from bench.servers import new_database
from devtools.commands import COMMANDS, HOSTS
from devtools.processes import free_port, listens, spawn, stop, wait_until
from sqlalchemy import create_engine, inspect, text

LIMIT = 180  # seconds for a command that ends within a round


class Subject:
    """Its processes are started and stopped for each round. `changing` names its tables."""

    changing: tuple[str, ...] = ("jobs", "orders")
    waiting = "SELECT count(*) FROM jobs WHERE finished_at IS NULL"
    title = "the service"
    python = sys.executable
    drive: tuple[str, ...] = ("bench.drive",)
    setup: tuple[str, ...] = ("app.migrate",)

    def __init__(
        self,
        name: str,
        backend: str,
        folder: Path,
        database: str,
        number: int = 0,
        **env: str,
    ) -> None:
        self.name, self.backend, self.folder, self.database = name, backend, folder, database
        folder.mkdir(parents=True, exist_ok=True)
        url = new_database(database, name, folder)
        self.env = {"DATABASE_URL": url, "BENCH_BACKEND": backend, "LOG_JSON": "true", **env}
        if redis := os.environ.get("REDIS_URL"):  # Celery's results are in the next database
            self.env["REDIS_URL"] = f"{redis.rpartition('/')[0]}/{2 * number}"
        self.engine = create_engine(sync_url(url))
        self.port = 0
        self.run(*self.setup)

    @property
    def worker(self) -> str:
        """The name of the process that runs its jobs."""
        return HOSTS[self.backend]

    def command(self, process: str) -> str:
        return COMMANDS[process]

    def run(self, *arguments: str) -> str:
        """Run a module with this subject's settings; returns what it printed."""
        command = [self.python, "-m", *arguments]
        env = {**os.environ, **self.env, "LOG_LEVEL": "WARNING"}
        done = subprocess.run(
            command, env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT
        )
        return done.stdout

    def submit(self, what: str, number: int) -> str:
        return self.run(*self.drive, what, str(number))

    def left(self, what: str) -> int:
        """How many of the submitted jobs haven't ended."""
        if what == "orders":
            return self.count("SELECT count(*) FROM orders WHERE status <> 'processed'")
        return self.count(self.waiting)

    def warm(self, worker: psutil.Process) -> None:
        """Wait until the worker has run some jobs."""
        self.submit("noops", 20)
        wait_for("warm", lambda: self.left("noops") == 0, worker)

    @contextmanager
    def running(self, name: str) -> Iterator[psutil.Process]:
        command = shlex.split(self.command(name))
        port = free_port()
        if name == "api":
            command += ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
            self.port = port
        log = self.folder / f"{self.name}-{name}.log"
        process = spawn(command, env=self.env, log=log)
        try:
            if name == "api":
                wait_until(lambda: listens(port), process, 20)
            yield psutil.Process(process.pid)
        except BaseException:
            say(f"{self.name}, the end of {name}'s log:\n{log.read_text('utf-8')[-2000:]}")
            raise
        finally:
            stop(process)

    def empty(self) -> None:
        """Delete all orders, jobs and messages."""
        tables = [name for name in self.changing if inspect(self.engine).has_table(name)]
        self.change(*(f"DELETE FROM {table}" for table in tables))
        if "REDIS_URL" in self.env:
            self.redis.flushdb()

    def settle(self) -> None:
        """Vacuum and analyze, so that no plan depends on when the server last did it by itself."""
        if self.database != "sqlite":
            self.change(f"VACUUM ANALYZE {', '.join(self.changing)}")

    @property
    def redis(self) -> Any:
        return import_module("redis").Redis.from_url(self.env["REDIS_URL"])

    def count(self, query: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(text(query)).scalar_one())

    def change(self, *statements: str) -> None:
        autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
