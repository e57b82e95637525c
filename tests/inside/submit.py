# mypy: disable-error-code="import-not-found,untyped-decorator"
"""Submit jobs for a switch of back ends: jobs that begin before it, and jobs that wait."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from app import tasks
from app.core.database import AsyncSessionLocal, dispose
from app.jobs import Date, Definition, Interval, Jobs, Schedules
from app.tasks.deployed import hold, note, work

COUNT = 20
SOON = timedelta(seconds=2)


async def running(session: Any) -> None:
    await Jobs(session).submit(hold, "hold 0")
    await ticking(session)


async def ticking(session: Any) -> None:
    """Create a schedule. Each of its ticks must get a job, also those during the switch."""
    await schedule(session, "each second", Interval(seconds=1))


async def waiting(session: Any) -> None:
    for number in range(COUNT):
        await Jobs(session).submit(work, f"work {number}")
        await Jobs(session).submit(note, f"later {number}", delay=SOON)
    await schedule(session, "once", Date(datetime.now(UTC) + SOON))


async def no_more(session: Any) -> None:
    await Schedules(session).delete("each_second")


async def schedule(session: Any, item: str, trigger: Any) -> None:
    wanted = Definition(
        trigger=trigger, args={"item": item}, misfire_grace=300, catch_up="each", overlap="queue"
    )
    await Schedules(session).create(item.replace(" ", "_"), note.name, wanted)


WHAT = {"running": running, "ticking": ticking, "waiting": waiting, "no more": no_more}


async def main(what: str) -> None:
    tasks.load()
    async with AsyncSessionLocal() as session:
        await WHAT[what](session)
        await session.commit()
    await dispose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
