"""A world with several clocks at once, which are processes that wake the dispatcher."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self
from uuid import uuid4

from sqlalchemy import make_url, select, update

from app.config import get_settings
from app.core.database import IS_SQLITE
from app.jobs.table import jobs, schedules
from devtools.commands import CLOCK, HOSTS
from tests.engine.api import schedule_calls
from tests.engine.delivery.world import World
from tests.service import ROOT, START_LIMIT, create_database, eventually

EVERY_SECOND = 'Schedule("every_second", Interval(seconds=1), work, ("tick", 0))'
IMPORTS = """
from app.tasks.delivered_probes import work
from app.tasks.probes import echo, later
"""


class Tick(NamedTuple):
    """A tick that has become a job."""

    at: datetime
    submitted: datetime

    @property
    def late(self) -> float:
        return (self.submitted - self.at).total_seconds()


def empty_database(folder: Path) -> str:
    """Make a database without tables; returns its address."""
    if IS_SQLITE:
        return f"sqlite:///{folder}/empty_{uuid4().hex}.db"
    url = make_url(os.environ["DATABASE_URL"]).set(database=create_database("empty"))
    return url.render_as_string(hide_password=False)


def is_stopped(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None


def backend() -> str:
    """A back end whose jobs run in the clock's own process, or else the one of orders."""
    beside = (name for name, host in HOSTS.items() if host == CLOCK)
    return next(beside, get_settings().queues["orders"])


class Clocks(World):
    """Clocks have numbers in their names, as hosts have: `scheduler`, `scheduler-2`."""

    def __init__(self, folder: Path, **env: str) -> None:
        super().__init__(folder, backend(), None, **{"MAX_JOBS": "3", **env})
        for name in ("spy", "probes"):
            copy = {"spy": "spy", "probes": "scheduled_probes"}[name]
            source = ROOT / "tests" / "engine" / "schedules" / f"{name}.py"
            shutil.copy(source, folder / "app" / "tasks" / f"{copy}.py")

    def declare(self, *declared: str) -> Self:
        """Add schedules to the code of this release."""
        with (self.folder / "app" / "tasks" / "schedules.py").open("a") as file:
            file.write(f"{IMPORTS}\nSCHEDULES += [{', '.join(declared)}]\n")
        return self

    async def migrate(self) -> None:
        """Migrate, as each release does once."""
        command = [sys.executable, "-m", "app.migrate"]
        await asyncio.to_thread(
            subprocess.run, command, check=True, cwd=self.folder, env=self.whole_env
        )

    def clocks(self, count: int) -> list[str]:
        return [CLOCK + (f"-{number}" if number > 1 else "") for number in range(1, count + 1)]

    def start(self, *names: str) -> Self:
        for name in names:
            self._sign(name).unlink(missing_ok=True)
        return super().start(*names)

    def begin(self, count: int) -> Self:
        """Start these clocks, the API and a host, as far as they don't run, all at once."""
        names = dict.fromkeys(["api", self.host(), *self.clocks(count)])
        return self.start(*(name for name in names if name not in self.processes))

    async def start_clocks(self, count: int) -> None:
        """Begin these clocks, and wait until each one wakes the dispatcher."""
        await asyncio.to_thread(self.begin, count)
        for name in self.clocks(count):
            await self._wakes(name)

    def kill_clocks(self) -> None:
        self.kill(*(name for name in self.clocks(3) if name in self.processes))

    @property
    def ended(self) -> list[str]:
        """The processes that have ended by themselves."""
        return [name for name, process in self.processes.items() if process.poll() is not None]

    async def restart(self, name: str) -> None:
        """Start a clock that was killed, and wait until it wakes the dispatcher."""
        await asyncio.to_thread(self.start, name)
        await self._wakes(name)

    def _sign(self, name: str) -> Path:
        """A file that a clock writes whenever it has woken the dispatcher."""
        return self.heartbeats(name) / "clock"

    async def _wakes(self, name: str) -> None:
        async def woke() -> bool:
            return self._sign(name).exists()

        await eventually(woke, START_LIMIT)

    async def fired_last(self) -> str:
        """Wait for a tick; returns the clock that submitted it."""
        fired = self.folder / "fired"
        fired.unlink(missing_ok=True)
        names = {str(process.pid): name for name, process in self.processes.items()}

        async def named() -> str | None:
            return names.get(fired.read_text()) if fired.exists() else None

        return await eventually(named)

    async def froze(self) -> str:
        """Let a clock freeze in the middle of the next tick; returns its name."""
        (self.folder / "freeze").touch()

        async def one_has() -> str | None:
            names = (n for n in self.clocks(3) if is_stopped(self.processes[n].pid))
            return next(names, None)

        return await eventually(one_has)

    async def ticks(self, schedule_id: str) -> list[Tick]:
        """The ticks that have become jobs, in the order of time."""
        prefix = f"schedule:{schedule_id}:"
        found = select(jobs.c.key, jobs.c.created_at).where(jobs.c.key.startswith(prefix))
        async with self.engine.connect() as connection:
            rows = (await connection.execute(found.order_by(jobs.c.key))).all()
        return [Tick(datetime.fromisoformat(key.removeprefix(prefix)), at) for key, at in rows]

    async def every_tick(self, seconds: int) -> list[Tick]:
        """Wait for the next ticks of `every_second`, as many as seconds.

        Raises AssertionError if a tick has no job, or more than one.
        """
        first = datetime.fromtimestamp(math.ceil(datetime.now(UTC).timestamp()), UTC)
        return await self.ticks_between(first, first + timedelta(seconds=seconds - 1))

    async def ticks_between(self, first: datetime, last: datetime) -> list[Tick]:
        async def passed() -> list[Tick]:
            ticks = await self.ticks("every_second")
            return ticks if ticks and ticks[-1].at > last else []

        wait = (last - datetime.now(UTC)).total_seconds()
        ticks = await eventually(passed, max(0, wait) + 20)
        found = [tick for tick in ticks if first <= tick.at <= last]
        seconds = range(int((last - first).total_seconds()) + 1)
        assert [tick.at for tick in found] == [first + timedelta(seconds=n) for n in seconds]
        return found

    async def each_has_run_once(self) -> None:
        """Wait until each job of `every_second` has succeeded. Each must have made one order."""
        await self.ran_once("schedule:every_second:", "tick")

    async def schedule(self, schedule_id: str) -> dict[str, Any]:
        return await schedule_calls.get(self, schedule_id)

    async def set_row(self, schedule_id: str, **values: Any) -> None:
        """Change the schedule's row, for example its times."""
        mine = schedules.c.id == schedule_id
        async with self.engine.begin() as connection:
            await connection.execute(update(schedules).where(mine).values(values))


def latest(ticks: Sequence[Tick]) -> float:
    return max(tick.late for tick in ticks)
