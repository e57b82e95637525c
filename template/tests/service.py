"""The service under test: a copy of the app, in real processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar
from uuid import UUID, uuid4

import httpx
import psycopg
from sqlalchemy import make_url

from devtools.commands import COMMANDS
from devtools.processes import free_port, listens, spawn, stop, wait_until

ROOT = Path(__file__).parents[1]
START_LIMIT = 60  # seconds, on a busy machine
API_ENDED = -signal.SIGTERM  # uvicorn raises the signal again once it has shut down

T = TypeVar("T")

created: list[str] = []  # databases of this run on the server


async def eventually(check: Callable[[], Awaitable[T | None]], limit: float = 20) -> T:
    """Wait until the check returns something true. Raises AssertionError after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not (found := await check()):
        assert time.monotonic() < deadline, f"still false after {limit:g} s: {check}"
        await asyncio.sleep(0.02)
    return found


def all_on(backend: str) -> str:
    """A value of QUEUES that has every queue on one back end."""
    from app.config import get_settings

    return json.dumps(dict.fromkeys(get_settings().queues, backend))


def copy_database(source: str, folder: Path) -> str:
    """Copy a database without clients, which is faster than to migrate; returns its address."""
    url = make_url(source)
    if url.get_backend_name() == "sqlite":
        copy = shutil.copy(str(url.database), folder / f"{uuid4().hex}.db")
        return f"sqlite:///{copy}"
    name = create_database("copy", of=str(url.database))
    return url.set(database=name).render_as_string(hide_password=False)


def create_database(kind: str, of: str = "template1") -> str:
    """Create a database on the server, a copy of another one; returns its name."""
    name = f"{kind}_{uuid4().hex}"
    on_server(f"CREATE DATABASE {name} TEMPLATE {of}")
    created.append(name)
    return name


def drop_created() -> None:
    for name in created:
        on_server(f"DROP DATABASE {name} WITH (FORCE)")


def on_server(statement: str) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(statement.encode())


class Service:
    """Its processes have the names of `devtools/commands.py`. Each logs to a file of its own."""

    spawned: ClassVar[list[subprocess.Popen[bytes]]] = []  # by all services of this run
    launcher: ClassVar[list[str]] = []  # a command that runs each process's command
    probes: ClassVar[list[Path]] = []  # modules with the tests' own tasks, for `app/tasks`

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder, self.env = folder, env
        self.port = free_port()
        self.ports = {"api": self.port}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        address = f"http://127.0.0.1:{self.port}"
        self.client = httpx.AsyncClient(base_url=address, timeout=10, trust_env=False)  # no proxy
        self.operator = {"X-API-Key": os.environ["API_KEY"]}
        for name in ("app", "migrations"):
            shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
        shutil.copy(ROOT / "pyproject.toml", folder)
        for module in self.probes:
            shutil.copy(module, folder / "app" / "tasks")

    @classmethod
    def alone(cls, folder: Path, **env: str) -> Self:
        """A service with a database of its own, for tests that stop or kill processes."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, DATABASE_URL=copy_database(os.environ["EMPTY_DATABASE"], folder), **env)

    def start(self, *names: str) -> Self:
        """Start these processes, and wait until the API listens."""
        for name in names:
            kind = re.sub(r"-\d+$", "", name)  # `api-2` is a second API
            command = [*self.launcher, *shlex.split(COMMANDS[kind])]
            if kind == "api":
                port = self.ports.setdefault(name, free_port())
                command += ["--host", "127.0.0.1", "--port", str(port)]
            log = self.folder / f"{name}.log"
            env = {"HEARTBEATS": str(self.heartbeats(name)), **self.env}
            self.processes[name] = spawn(command, env=env, log=log, cwd=self.folder)
            self.spawned.append(self.processes[name])
        if "api" in names:
            self._wait_for_api()
        return self

    def _wait_for_api(self) -> None:
        try:
            wait_until(lambda: listens(self.port), self.processes["api"], START_LIMIT)
        except (RuntimeError, TimeoutError) as error:
            error.add_note(self.log("api")[-2000:])
            raise

    def start_all(self) -> Self:
        return self.start(*COMMANDS)

    def stop(self, *names: str) -> list[int]:
        """Send SIGTERM to these or to all processes, one by one; returns their exit codes."""
        return [stop(self.processes.pop(name)) for name in names or list(self.processes)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        self.stop()

    def heartbeats(self, name: str) -> Path:
        return self.folder / "heartbeats" / name

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    async def is_ready(self) -> bool:
        return (await self.client.get("/health/ready")).status_code == 200

    async def submit(self, task: Any, *args: Any, **options: Any) -> UUID:
        """Submit a job to this service's database, as a script does."""
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

        from app.core.database import async_url
        from app.jobs import Jobs

        engine = create_async_engine(async_url({**os.environ, **self.env}["DATABASE_URL"]))
        async with AsyncSession(engine) as session:
            job = await Jobs(session).submit(task, *args, **options)
            await session.commit()
        await engine.dispose()
        return job.id

    async def job(self, job_id: str) -> dict[str, Any]:
        answer = await self.client.get(f"/jobs/{job_id}", headers=self.operator)
        answer.raise_for_status()
        data: dict[str, Any] = answer.json()["data"]
        return data

    async def job_is(self, job_id: object, status: str, limit: float = 20) -> dict[str, Any]:
        """Wait until the job has this status. Raises AssertionError if it ends with another."""

        async def reached() -> dict[str, Any] | None:
            job = await self.job(str(job_id))
            if job["status"] == status:
                return job
            became = f"the job is {job['status']}: {job['error']}; logs are in {self.folder}"
            assert not job["finished_at"], became
            return None

        return await eventually(reached, limit)
