"""Says which processes live and which tasks they know, and ends jobs whose task none knows.

Each process has a row in `processes` and updates it every few seconds. The tasks of those that live
are noted in `known_tasks`, which outlives their rows.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import uuid4

import structlog
from sqlalchemy import Connection, Exists, Row, bindparam, delete, insert, select, text, update

from app.config import get_settings
from app.core.concurrency import in_background
from app.core.control import control
from app.core.database import UNKEPT
from app.jobs.claims import BATCH, ENDED, LAZY, RUNS, WAITS
from app.jobs.contract import registry
from app.jobs.table import FREE, Status, db_time, jobs, known_tasks, processes, upsert

log = structlog.get_logger(__name__)

SAID_EVERY = 5  # seconds between two signs of life
SILENT = 30  # seconds without one after which a process doesn't count as alive
FORGOTTEN = 300  # seconds without one after which its row is deleted
JUDGE_EVERY = 60  # seconds at most; a twelfth of UNKNOWN_TASK_GRACE if that is less
DAY = 86_400
GOODBYE = 1  # seconds in which a process that ends deletes its row

UNKNOWN_TASK = "UnknownTask: no process has known this task for the whole of UNKNOWN_TASK_GRACE"

_here = 0  # how many rows this process has


class Presence:
    """The row of this process. A process without a back end hosts no jobs."""

    def __init__(
        self, backend: str | None = None, slots: int = 0, busy: Callable[[], int] = lambda: 0
    ) -> None:
        carried = get_settings().queues.items()
        self._id, self._began, self._said = uuid4(), time.monotonic(), float("-inf")
        self._busy = busy
        self._shown = {
            "host": socket.gethostname()[:200],
            "pid": os.getpid(),
            "backend": backend,
            "queues": sorted(queue for queue, name in carried if name == backend),
            "slots": slots,
            "version": get_settings().release,
        }

    async def say(self) -> None:
        """Update the row, unless that was done in the last few seconds."""
        if time.monotonic() - self._said >= SAID_EVERY:
            await control(self._write)
            self._said = time.monotonic()

    def _write(self, connection: Connection) -> None:
        now = {"seen_at": db_time(0), "busy": self._busy()}
        young = update(processes).where(processes.c.id == self._id, LAZY).values(now)
        if connection.execute(young).rowcount == 0:
            tasks = {task.name: task.signature for task in registry().values()}
            began = db_time(self._began - time.monotonic())
            row = self._shown | now | {"id": self._id, "tasks": tasks, "started_at": began}
            connection.execute(insert(processes).values(row))

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Delete the row at the end."""
        global _here
        _here += 1
        try:
            yield
        finally:
            _here -= 1
            await self.leave()

    async def leave(self) -> None:
        """Delete the row."""
        own = delete(processes).where(processes.c.id == self._id)
        with suppress(Exception):  # another process prunes it
            async with asyncio.timeout(GOODBYE):
                await control(lambda connection: connection.execute(own))


@asynccontextmanager
async def present() -> AsyncIterator[None]:
    """Say that this process lives, unless a host in it does."""
    if _here:
        yield
        return
    presence = Presence()
    async with presence.kept(), in_background(_say_on(presence)):
        yield


async def _say_on(presence: Presence) -> None:
    while True:
        with suppress(Exception):  # whoever needs the database says that it is away
            await presence.say()
        await asyncio.sleep(SAID_EVERY)


def try_to_write(connection: Connection) -> datetime:
    """Write a row and delete it again: a database that can be read may be full.

    Returns the database's time. Raises SQLAlchemyError.
    """
    name = f"ready {uuid4()}"
    row = insert(known_tasks).values(name=name, seen_at=db_time(0))
    now: datetime = connection.execute(row.returning(known_tasks.c.seen_at)).scalar_one()
    connection.execute(delete(known_tasks).where(known_tasks.c.name == name))
    return now


def judge_every() -> float:
    return min(JUDGE_EVERY, get_settings().unknown_task_grace / 12)


# The pairs of a queue and a task that have waiting jobs: one step in the index finds each pair.
KINDS = """
    WITH RECURSIVE kind (id) AS (
      SELECT * FROM (
        SELECT id FROM jobs WHERE status = 'pending' AND crashes = 0 ORDER BY queue, task LIMIT 1
      ) AS first
      UNION ALL
      SELECT coalesce((
        SELECT id FROM jobs
        WHERE status = 'pending' AND crashes = 0 AND queue = this.queue AND task > this.task
        ORDER BY queue, task LIMIT 1
      ), (
        SELECT id FROM jobs WHERE status = 'pending' AND crashes = 0 AND queue > this.queue
        ORDER BY queue, task LIMIT 1
      )) FROM kind JOIN jobs AS this ON this.id = kind.id
    )
    SELECT queue, task FROM jobs JOIN kind ON kind.id = jobs.id
"""
# Each queue is at least '': without the condition SQLite reads all waiting jobs.
_CRASHED = """
    SELECT queue, task FROM jobs WHERE status = 'pending' AND crashes > 0 AND queue >= ''
"""
WAITING = f"{KINDS} UNION {_CRASHED}"
_UNHEARD_OF = "task NOT IN (SELECT name FROM known_tasks WHERE seen_at >= :since)"
_UNKNOWN = text(f"{KINDS} WHERE {_UNHEARD_OF} UNION {_CRASHED} AND {_UNHEARD_OF}")


def end_unknown(connection: Connection) -> Sequence[Row[Any]]:
    """End jobs that were due for UNKNOWN_TASK_GRACE while no live process knew their task.

    For a task that was never known, the grace begins when this function first sees a job of it:
    processes of release 0.1.0 don't say which tasks they know.
    """
    grace = get_settings().unknown_task_grace
    since = connection.scalar(select(db_time(-grace)))
    _note_what_is_known(connection)
    since_then = bindparam("since", since, db_time.type)
    kinds = connection.execute(_UNKNOWN.bindparams(since_then)).all()
    noted = set(connection.scalars(select(known_tasks.c.name)))
    _note(connection, {(kind.task, "") for kind in kinds if kind.task not in noted})
    found: list[Row[Any]] = []
    for kind in kinds:
        if kind.task in noted:
            for lane in ("crashes = 0", "crashes > 0"):  # each has an index
                found += _end(connection, kind, lane, since)
    return found


def _end(connection: Connection, kind: Row[Any], lane: str, since: Any) -> Sequence[Row[Any]]:
    where = WAITS, text(lane), jobs.c.queue == kind.queue, jobs.c.task == kind.task
    old = select(jobs.c.id).where(*where, jobs.c.run_at < since).order_by(jobs.c.run_at)
    ended = update(jobs).where(jobs.c.id.in_(old.limit(BATCH).with_for_update(**FREE)))
    values = {"status": Status.DEAD, "error": UNKNOWN_TASK, "finished_at": db_time(0)}
    return connection.execute(ended.values(values | {"wake_at": None}).returning(*ENDED)).all()


def _note_what_is_known(connection: Connection) -> None:
    """Note the tasks of live processes and of running jobs: release 0.1.0 shows only the latter."""
    # If nobody judged for a while, no process lived then: each grace begins anew.
    connection.execute(update(known_tasks).where(~_judged_lately()).values(seen_at=db_time(0)))
    alive = select(processes.c.tasks).where(processes.c.seen_at > db_time(-SILENT))
    known = {pair for tasks in connection.scalars(alive) for pair in tasks_of(tasks).items()}
    known |= {(name, "") for name in connection.scalars(select(jobs.c.task).where(RUNS).distinct())}
    _note(connection, known)
    gone = known_tasks.c.seen_at < db_time(-2 * get_settings().unknown_task_grace - DAY)
    connection.execute(delete(known_tasks).where(gone))
    connection.execute(delete(processes).where(processes.c.seen_at < db_time(-FORGOTTEN)))


def tasks_of(shown: Any) -> dict[str, str]:
    """The tasks that a process shows, and their signatures. A row may have garbage there."""
    pairs = shown.items() if isinstance(shown, dict) else ()
    return {name: own for name, own in pairs if _is_text(name, 200) and _is_text(own, 16)}


def _is_text(value: Any, most: int) -> bool:
    return isinstance(value, str) and len(value) <= most and not UNKEPT.search(value)


def _judged_lately() -> Exists:
    lately = known_tasks.c.seen_at >= db_time(-max(SILENT, 3 * judge_every()))
    return select(known_tasks.c.name).where(lately).exists()


def _note(connection: Connection, known: Iterable[tuple[str, str]]) -> None:
    rows = [
        {"name": name, "signature": own, "seen_at": db_time(0)}
        for name, own in sorted(known, key=repr)
    ]
    if rows:
        noted = upsert(known_tasks).values(rows)
        again = {"index_elements": ["name", "signature"], "set_": {"seen_at": db_time(0)}}
        connection.execute(noted.on_conflict_do_update(**again))


def is_taken(connection: Connection, task: str, signature: str | None) -> bool:
    """Whether a process that lived within the grace takes such arguments, or nobody can know."""
    since = db_time(-max(SILENT, get_settings().unknown_task_grace))
    same = known_tasks.c.name == task, known_tasks.c.signature == signature
    found = select(known_tasks.c.name).where(*same, known_tasks.c.seen_at >= since).exists()
    return bool(connection.scalar(select(found | ~_judged_lately())))
