"""A service on one back end. A test may kill or freeze its processes and servers."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Row, func, make_url, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from app.core.database import async_url
from app.jobs import Jobs
from app.jobs.table import jobs
from app.models import Order
from devtools import servers
from devtools.commands import HOSTS
from tests.engine.broker import Broker
from tests.service import ROOT, START_LIMIT, Service, all_on, copy_database, eventually

SETTINGS = {"LEASE": "3", "RELAY_INTERVAL": "0.1", "PUSH_TIMEOUT": "1"}


def parts_of(backend: str) -> Any:
    """The module that a world needs for this back end's broker; None if it has no broker."""
    if backend in servers.BROKER_OF:
        return importlib.import_module(f"tests.engine.delivery.{backend}_parts")
    return None


@contextmanager
def without_writers(url: str) -> Iterator[None]:
    """On SQLite nobody writes meanwhile."""
    address = make_url(url)
    if address.get_backend_name() != "sqlite":
        yield
        return
    with closing(sqlite3.connect(str(address.database), timeout=START_LIMIT)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


class World(Service):
    """Hosts, the processes that run jobs, have numbers in their names: `worker`, `worker-2`.

    Waits for a job have long limits, because its host may have to start first.
    """

    def __init__(self, folder: Path, backend: str, broker: Broker | None, **env: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if "DATABASE_URL" not in env:
            env["DATABASE_URL"] = copy_database(os.environ["EMPTY_DATABASE"], folder)
        self.backend = backend
        carried = broker.env if broker else {}
        self._parts = parts_of(backend)
        own = self._parts.SETTINGS if self._parts else {}
        super().__init__(folder, **{"QUEUES": all_on(backend), **SETTINGS, **own, **carried, **env})
        self._broker = broker
        self.in_api = HOSTS[backend] == "api"
        self.engine: AsyncEngine = create_async_engine(async_url(self.env["DATABASE_URL"]))
        for probes in (ROOT / "tests" / "engine" / "delivery").glob("*probes.py"):
            (folder / "app" / "tasks" / f"delivered_{probes.name}").write_text(probes.read_text())

    def edit(self, file: str, old: str, new: str) -> None:
        """Change the code, to make it another release. Call it before a process starts."""
        path = self.folder / "app" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def shorten_timeouts(self, seconds: int) -> None:
        """Give no task more time than this. Call it before a process starts."""
        shorter = f"timedelta(seconds={seconds})"
        self.edit("jobs/contract.py", "timedelta(minutes=5)", shorter)
        self.edit("tasks/orders.py", "timedelta(minutes=1)", shorter)
        self.edit("tasks/delivered_probes.py", "timedelta(seconds=60)", shorter)

    @property
    def whole_env(self) -> dict[str, str]:
        return {**os.environ, **self.env}

    async def depth(self) -> int:
        """How many messages wait in the broker."""
        assert self._parts
        url = self.broker.env[self.broker.variable]
        return int(await asyncio.to_thread(self._parts.depth, url))

    @property
    def slots(self) -> int:
        """The slots of a host whose back end has a broker."""
        assert self._parts
        return int(self._parts.SLOTS)

    @property
    def room(self) -> int:
        """How many bytes a test leaves the broker for messages. Thousands of messages need more."""
        assert self._parts
        return int(self._parts.ROOM)

    def messages_of(self, jobs: int) -> int:
        """How many messages the broker holds while so many jobs wait."""
        assert self._parts
        return int(self._parts.messages_of(jobs))

    async def push_of_old(self, task: str, job_id: UUID) -> None:
        """Send a message as an earlier release may have done."""
        assert self._parts
        url = self.broker.env[self.broker.variable]
        await asyncio.to_thread(self._parts.push_of_old, url, task, str(job_id))

    @property
    def broker(self) -> Broker:
        assert self._broker
        return self._broker

    def host(self, number: int = 1) -> str:
        return HOSTS[self.backend] + (f"-{number}" if number > 1 else "")

    def start_hosts(self, count: int = 1) -> Self:
        """Start those of the first `count` hosts that don't run."""
        names = [self.host(number) for number in range(1, count + 1)]
        return self.start(*(name for name in names if name not in self.processes))

    async def as_it_should_be(self) -> None:
        """Start the broker, the API and the first host, and kill all other processes."""
        if self._broker:
            await self._broker.start_for(self)
        for name in set(self.processes) - {"api", self.host()}:
            self.kill(name)
        self.start(*({"api", self.host()} - set(self.processes)))

    def kill(self, *names: str) -> None:
        """Send SIGKILL to these processes and to all that they started."""
        for name in names:
            process = self.processes.pop(name)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def kill_all(self) -> None:
        self.kill(*self.processes)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Stop a process. On SQLite it holds no lock then, for which all would wait."""
        group = self.processes[name].pid
        with without_writers(self.env["DATABASE_URL"]):
            os.killpg(group, signal.SIGSTOP)
            os.waitid(os.P_PGID, group, os.WSTOPPED | os.WNOWAIT)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """Start the host again whenever it has ended, as systemd or compose does."""
        done = asyncio.Event()

        async def supervise() -> None:
            while not done.is_set():
                if self.processes[self.host()].poll() is not None:
                    self.kill(self.host())
                    await asyncio.to_thread(self.start_hosts)
                await asyncio.sleep(0.1)

        async with asyncio.TaskGroup() as group:
            group.create_task(supervise())
            yield
            done.set()

    async def close(self) -> None:
        self.kill_all()
        await self.client.aclose()
        await self.engine.dispose()

    async def submit(self, task: Any, *args: Any, **options: Any) -> UUID:
        """Submit a job as a script does, which rings no bell."""
        return (await self.submit_many(task, [args], **options))[0]

    async def submit_many(self, task: Any, calls: Sequence[Any], **options: Any) -> list[UUID]:
        async with AsyncSession(self.engine) as session:
            submitted = [await Jobs(session).submit(task, *args, **options) for args in calls]
            await session.commit()
        return [job.id for job in submitted]

    async def place_order(self) -> UUID:
        """Place an order by the API; returns its job's id."""
        answer = await self.client.post("/orders", json={"item": "tea", "quantity": 1})
        assert answer.status_code == 201
        return UUID(answer.json()["data"]["job_id"])

    async def row(self, job_id: UUID) -> Row[Any]:
        """The job's row, from the table, because the API may be down."""
        async with AsyncSession(self.engine) as session:
            return (await session.execute(select(jobs).where(jobs.c.id == job_id))).one()

    async def row_is(self, job_id: UUID, *statuses: str, limit: float = START_LIMIT) -> Row[Any]:
        async def reached() -> Row[Any] | None:
            row = await self.row(job_id)
            return row if row.status in statuses else None

        return await eventually(reached, limit)

    async def all_are(self, status: str, ids: Sequence[UUID], limit: float = START_LIMIT) -> None:
        count = select(func.count()).where(jobs.c.status == status, jobs.c.id.in_(ids))

        async def reached() -> bool:
            async with self.engine.connect() as connection:
                return (await connection.execute(count)).scalar_one() == len(ids)

        await eventually(reached, limit)

    async def effects(self, item: str) -> int:
        """The number of orders of this item. Each try that succeeded has made one."""
        count = select(func.count()).select_from(Order).where(Order.item == item)
        async with self.engine.connect() as connection:
            return (await connection.execute(count)).scalar_one()

    async def ran_once(self, keys: str, item: str) -> None:
        """Wait for the jobs so far whose keys begin with this. Each must have made one order."""
        mine = jobs.c.key.startswith(keys, autoescape=True)
        async with self.engine.connect() as connection:
            ids = (await connection.execute(select(jobs.c.id).where(mine))).scalars().all()
        await self.all_are("succeeded", ids)
        ran = select(func.count()).where(mine, jobs.c.status == "succeeded").scalar_subquery()
        made = select(func.count()).where(Order.item == item).scalar_subquery()
        async with self.engine.connect() as connection:  # one statement reads both at one moment
            counted = (await connection.execute(select(ran, made))).one()
        assert counted[0] == counted[1], counted

    def let_end(self, *items: str) -> None:
        """Let the jobs end that wait for it, in each of their tries."""
        for item in items:
            (self.folder / f"{item} may end").touch()

    async def marked(self, name: str) -> None:
        """Wait until a task has made this mark."""

        async def there() -> bool:
            return (self.folder / name).exists()

        await eventually(there, START_LIMIT)
