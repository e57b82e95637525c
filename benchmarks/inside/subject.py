"""What is measured: the rendered service, or the control, on a database of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import psutil
from app.core.database import sync_url
from devtools.commands import COMMANDS
from devtools.processes import free_port, listens, spawn, stop, wait_until
from sqlalchemy import URL, create_engine, inspect, make_url, text

CONTROL = {
    "arq": {
        "api": "uvicorn control.arq_api:app",
        "worker": "arq control.arq_worker.WorkerSettings",
    },
    "celery": {
        "api": "uvicorn control.celery_api:app",
        "worker": "celery -A control.celery_app worker --loglevel=info",
    },
}


class Subject:
    """Processes that are started and stopped for each round, and their data."""

    changing: tuple[str, ...] = ("jobs", "orders")

    def __init__(
        self, name: str, commands: dict[str, str], number: int, folder: Path, database: str
    ) -> None:
        self.name, self.commands, self.folder = name, commands, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.env = {"DATABASE_URL": new_database(database, name, folder)}
        if redis := os.environ.get("REDIS_URL"):  # results of Celery's go to the next database
            self.env["REDIS_URL"] = f"{redis.rpartition('/')[0]}/{2 * number}"
        self.engine = create_engine(sync_url(self.env["DATABASE_URL"]))
        self.port = free_port()

    @classmethod
    def service(cls, folder: Path, database: str, name: str = "service") -> Self:
        made = cls(name, COMMANDS, 0, folder, database)
        made.run("-m", "app.migrate")
        return made

    @classmethod
    def control(cls, backend: str, folder: Path, database: str) -> Self:
        made = cls("control", CONTROL[backend], 1, folder, database)
        made.run("-m", "control.orders")
        return made

    def run(self, *arguments: str) -> str:
        """Run a module with this subject's settings; returns what it printed."""
        command = [sys.executable, *arguments]
        env = {**os.environ, **self.env, "LOG_LEVEL": "WARNING"}
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout

    @contextmanager
    def running(self, name: str) -> Iterator[psutil.Process]:
        command = shlex.split(self.commands[name])
        if name == "api":
            command += ["--host", "127.0.0.1", "--port", str(self.port), "--no-access-log"]
        log = self.folder / f"{self.name}-{name}.log"
        process = spawn(command, env=self.env, log=log)
        try:
            if name == "api":
                wait_until(lambda: listens(self.port), process, 20)
            yield psutil.Process(process.pid)
        finally:
            stop(process)

    def empty(self) -> None:
        """No orders, no jobs, no messages."""
        tables = [name for name in self.changing if inspect(self.engine).has_table(name)]
        self.change(*(f"DELETE FROM {table}" for table in tables))
        if "REDIS_URL" in self.env:
            self.redis.flushdb()

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


def new_database(kind: str, name: str, folder: Path) -> str:
    """An empty one; returns its URL."""
    if kind == "sqlite":
        (folder / f"{name}.db").unlink(missing_ok=True)
        return f"sqlite:///{folder.resolve() / name}.db"
    unique = f"{name}_{uuid4().hex}"
    server: URL = make_url(os.environ["POSTGRESQL_URL"])
    with create_engine(sync_url(str(server)), isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(f"CREATE DATABASE {unique}"))
    return server.set(database=unique).render_as_string(hide_password=False)


def cpu(process: psutil.Process) -> float:
    """Seconds that it and its children have used."""
    used = 0.0
    for each in [process, *process.children(recursive=True)]:
        times = each.cpu_times()
        used += times.user + times.system
    return used


def wait_for(what: str, reached: Callable[[], bool], limit: float = 90) -> None:
    deadline = time.monotonic() + limit
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not {what} after {limit:g} s")
        time.sleep(0.02)
