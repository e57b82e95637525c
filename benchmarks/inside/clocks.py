"""Measures how late a clock submits the jobs of a schedule that is due each second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from statistics import median

from app.jobs import Interval, Schedule
from app.jobs.schedules import definition_of
from app.jobs.table import db_time, jobs, schedules
from app.tasks.bench import noop
from bench.processes import wait_for
from bench.progress import say
from bench.result import Result
from bench.sizes import size
from bench.subject import Subject
from devtools.commands import CLOCK
from sqlalchemy import func, insert, select

TICKS = size(60)
WARM = 3  # the first ticks, which don't count
REACH = 50  # milliseconds
KEY = "schedule:bench:"
TITLES = {
    "background": "the API's own loop",
    "arq": "the loop of ARQ's worker",
    "celery": "Celery Beat",
    "apscheduler": "APScheduler 3",
    "apscheduler-4": "APScheduler 4",
}


def measure(backend: str, folder: Path) -> Iterator[Result]:
    service = Subject("service", backend, folder, "postgresql")
    each = Schedule("bench", Interval(seconds=1), noop)
    values = {"definition": definition_of(each), "task": each.task.name, "next_tick": db_time(0)}
    with service.engine.begin() as connection:
        connection.execute(insert(schedules).values(id=each.id, **values))
    with service.running(CLOCK) as process:
        time.sleep(TICKS)
        wait_for("ticked", lambda: len(late(service)) >= TICKS + WARM, process)
    found = sorted(late(service)[WARM:])
    middle, most = median(found), found[-1]
    text = f"median {middle:.0f} ms, at most {most:.0f} ms"
    say(f"ticks by {TITLES[backend]}: {text}")
    target = f"<= {REACH} ms"
    yield Result("tick to its job's row", TITLES[backend], text, target, most <= REACH)


def late(service: Subject) -> list[float]:
    """The milliseconds from each tick to its job, in the order of the ticks."""
    moment = func.substr(jobs.c.key, len(KEY) + 1)
    found = select(moment, jobs.c.created_at).where(jobs.c.key.startswith(KEY))
    with service.engine.connect() as connection:
        rows = connection.execute(found.order_by(jobs.c.key)).all()
    return [(at - datetime.fromisoformat(tick)).total_seconds() * 1000 for tick, at in rows]
