"""Takes back jobs of dead hosts, and ends jobs whose task nobody knows. Any process may watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Row, select

from app.config import get_settings
from app.core.concurrency import heartbeat, in_background, to_the_end
from app.core.control import control
from app.core.outages import Jump, database_clock, tell
from app.jobs import claims, processes
from app.jobs.endings import Ended, Ending, origin_of, tell_end
from app.jobs.metrics import LEASES_LOST, label_of
from app.jobs.processes import Presence
from app.jobs.table import Status, db_time


class _Watch:
    def __init__(self, presence: Presence | None = None) -> None:
        settings = get_settings()
        self._presence = presence or Presence()
        self._lease, self._interval = settings.lease, settings.relay_interval
        self._looked, self._judges, self._judged = time.monotonic(), 0.0, float("-inf")
        self._asked, self._jump, self._failed = float("-inf"), database_clock.jump, False

    def wait(self, seconds: float) -> None:
        """Call no lease lost for so many seconds, so that live processes can extend theirs."""
        self._judges = time.monotonic() + seconds

    async def step(self) -> None:
        if self._failed:  # what refused a write here has kept hosts from extending leases, too
            await control(processes.try_to_write)
            self.wait(self._lease / 2)
        self._failed = True
        if not self._may_judge() or time.monotonic() - self._asked > self._lease / 3:
            await self._ask_the_clock()
        if database_clock.jump is not self._jump:
            await self._heed(database_clock.jump)
        latest, judges = database_clock.latest(), self._may_judge()
        if judges:
            back = await control(lambda connection: claims.take_back(connection, latest))
            for row in back:
                LEASES_LOST.add(label_of(row.task))
            _report(back)
        self._looked = time.monotonic()
        await self._presence.say()
        if judges and time.monotonic() - self._judged > processes.judge_every():
            _report(ended := await control(processes.end_unknown))
            self._judged = float("-inf") if ended else time.monotonic()
        self._failed = False

    async def _ask_the_clock(self) -> None:
        self._asked = time.monotonic()
        now = await control(lambda connection: connection.execute(select(db_time(0))).scalar_one())
        database_clock.note(now, self._asked)

    async def _heed(self, jump: Jump | None) -> None:
        """After a jump, let hosts extend their leases by the new time before it judges them."""
        self.wait(self._lease)
        while jump and jump.seconds < 0 and await control(claims.bring_nearer):
            heartbeat("relay")
        self._jump = jump

    def _may_judge(self) -> bool:
        """False just after this process stood still: others may have, too, and need to extend."""
        now = time.monotonic()
        if now - self._looked > self._interval + self._lease / 3:
            self.wait(self._lease / 2)
        return now >= self._judges


def new_watch(presence: Presence | None = None) -> _Watch:
    """A process needs one. If it pauses, the same watch goes on."""
    made = _Watch(presence)
    made.wait(get_settings().lease / 2)  # the clock may have jumped before this process began
    return made


async def watch(each: _Watch) -> None:
    """Watch until it is cancelled. It waits for a database that is away or has no tables yet."""
    while True:
        try:
            await to_the_end(each.step())
        except Exception as error:
            tell("watch.failed", error)
        heartbeat("relay")
        await asyncio.sleep(get_settings().relay_interval)


@asynccontextmanager
async def watching(presence: Presence) -> AsyncIterator[None]:
    """Watch, and keep this process's row in the table `processes`."""
    async with presence.kept(), in_background(watch(new_watch(presence))):
        yield


def _report(rows: Sequence[Row[Any]]) -> None:
    for row in rows:
        ending = Ending.DEAD if row.status == Status.DEAD else Ending.TAKEN_BACK
        known = row.id, row.task, row.queue, ending, row.attempts
        tell_end(Ended(*known, error=row.error, origin=origin_of(row)))
