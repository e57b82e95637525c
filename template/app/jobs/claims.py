"""How a host claims a single job, keeps what it runs, and takes back what a dead host held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from itertools import product
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Connection,
    Integer,
    Row,
    Select,
    String,
    Update,
    Uuid,
    bindparam,
    case,
    func,
    null,
    select,
    text,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from app.config import get_settings
from app.core.database import IS_SQLITE
from app.jobs.looks import LAZILY, Taken, Wanted, as_taken
from app.jobs.table import HEAD_START, Status, clock, jobs, known_tasks

Names = tuple[str, ...]

BATCH = 100  # jobs in one statement; more would hold SQLite's lock for too long
WORKER_LOST = "WorkerLost: each worker that ran this job died"
UNKNOWN_TASK = "UnknownTask: no release that ran since this job was due has such a task"

# Written out, for a bound value would keep the planner from the partial index.
WAITS, RUNS = text("status = 'pending'"), text("status = 'running'")
DUE = jobs.c.run_at <= clock(0)
LAZY = true() if IS_SQLITE else text(LAZILY)
ENDED = jobs.c.id, jobs.c.task, jobs.c.status, jobs.c.error  # what is told of a job


@cache  # a statement that stays the same object is compiled, and its key made, once
def _claim(bounded: bool) -> Update:
    mine = update(jobs).where(
        jobs.c.id == bindparam("job_id", type_=Uuid),
        jobs.c.task == bindparam("name", type_=String),
        WAITS,
        DUE,
        LAZY,
    )
    if bounded:
        others = jobs.alias("others")
        running = others.c.task == bindparam("name"), text("others.status = 'running'")
        busy = select(func.count()).select_from(others).where(*running)
        mine = mine.where(busy.scalar_subquery() < bindparam("max_running", type_=Integer))
    return mine.values(
        status=Status.RUNNING,
        attempts=jobs.c.attempts + 1,
        started_at=clock(0),
        wake_at=clock(get_settings().lease),
    ).returning(jobs.c.id, jobs.c.task, jobs.c.args, jobs.c.attempts, jobs.c.max_attempts)


def claim(connection: Connection, job_id: UUID, task: str, max_running: int | None) -> Taken | None:
    """Claim this job of this task if it is due; at most `max_running` of the task run then.

    With `max_running` it must be in a transaction, or two hosts could count before either claims.
    """
    values = {"job_id": job_id, "name": task, "max_running": max_running}
    if max_running is None:
        del values["max_running"]
    elif not IS_SQLITE:
        connection.execute(_ONE_AT_A_TIME, {"name": task})
    row = connection.execute(_claim(max_running is not None), values).first()
    return as_taken(row) if row else None


_ONE_AT_A_TIME = select(func.pg_advisory_xact_lock(func.hashtext(bindparam("name", type_=String))))


def due_one_by_one(connection: Connection, wanted: Wanted, limit: int) -> Sequence[Row[Any]]:
    """Those that must be claimed alone: of bounded tasks, and whose worker died; oldest first."""
    due = _due_one_by_one(tuple(wanted.queues), tuple(wanted.tasks), tuple(wanted.bounded))
    return connection.execute(due, {"most": limit}).all()


@lru_cache(maxsize=100)
def _due_one_by_one(queues: Names, tasks: Names, bounded: Names) -> Select[Any]:
    known = jobs.c.queue.in_(queues) & jobs.c.task.in_(tasks + bounded)
    lanes: list[Any] = [known & text("crashes > 0")]
    for queue, task in product(queues, bounded):
        lanes.append((jobs.c.queue == queue) & (jobs.c.task == task) & text("crashes = 0"))
    due = select(jobs.c.id, jobs.c.task, jobs.c.crashes, jobs.c.run_at).where(WAITS, DUE)
    oldest = due.order_by(jobs.c.queue, jobs.c.task, jobs.c.run_at).limit(bindparam("most"))
    found = union_all(*(select(oldest.where(lane).subquery()) for lane in lanes)).subquery()
    return select(found).order_by(found.c.run_at)


def extend(connection: Connection, held: Sequence[tuple[UUID, int]]) -> set[UUID]:
    """Extend the leases of these (id, attempt); returns the ids that are still held."""
    mine = tuple_(jobs.c.id, jobs.c.attempts).in_(held)
    extended = update(jobs).where(mine, jobs.c.status == Status.RUNNING, LAZY)
    lease = clock(get_settings().lease)
    return set(connection.scalars(extended.values(wake_at=lease).returning(jobs.c.id)))


def take_back(connection: Connection) -> Sequence[Row[Any]]:
    """Jobs whose lease has ended are pending again, or dead after too many crashes."""
    # An index of `wake_at` names all that wait, too; this keeps the planner to that of what runs.
    lease_end = func.coalesce(jobs.c.wake_at, jobs.c.wake_at)
    lost = select(jobs.c.id).where(RUNS, lease_end <= clock(0)).limit(BATCH)
    poison = jobs.c.crashes + 1 >= get_settings().max_crashes
    values = {
        "status": case((poison, Status.DEAD), else_=Status.PENDING),
        "crashes": jobs.c.crashes + 1,
        "max_attempts": jobs.c.max_attempts + 1,
        "pushes": 0,
        "wake_at": case((poison, null()), else_=clock(HEAD_START)),
        "finished_at": case((poison, clock(0)), else_=null()),
        "error": case((poison, WORKER_LOST), else_=jobs.c.error),
    }
    back = update(jobs).where(jobs.c.id.in_(lost.with_for_update(skip_locked=True)))
    return connection.execute(back.values(values).returning(*ENDED)).all()


def vouch(connection: Connection, names: Iterable[str]) -> None:
    """Say that this host has these tasks: jobs of other tasks may be dead after a grace."""
    insert: Any = sqlite.insert if IS_SQLITE else postgresql.insert
    seen = insert(known_tasks).values(
        [{"name": name, "seen_at": clock(0)} for name in sorted(names)]
    )
    again = seen.on_conflict_do_update(index_elements=["name"], set_={"seen_at": clock(0)})
    connection.execute(again)


# The kinds of jobs that wait, each by one step in the index however many jobs there are.
_KINDS = text(
    """
    WITH RECURSIVE kind (id) AS (
      SELECT * FROM (
        SELECT id FROM jobs WHERE status = 'pending' AND crashes = 0 ORDER BY queue, task LIMIT 1
      ) AS first
      UNION ALL
      SELECT (
        SELECT id FROM jobs
        WHERE status = 'pending' AND crashes = 0 AND (queue, task) > (this.queue, this.task)
        ORDER BY queue, task LIMIT 1
      ) FROM kind JOIN jobs AS this ON this.id = kind.id
    )
    SELECT queue, task FROM jobs JOIN kind ON kind.id = jobs.id
    WHERE task NOT IN (SELECT name FROM known_tasks WHERE seen_at >= :since)
    """
)


def end_unknown(connection: Connection) -> Sequence[Row[Any]]:
    """Jobs that were due for a grace in which no host had their task are dead."""
    grace = get_settings().unknown_task_grace
    since = connection.scalar(select(clock(-grace)))
    found: list[Row[Any]] = []
    for kind in connection.execute(_KINDS.bindparams(bindparam("since", since, clock.type))):
        where = WAITS, text("crashes = 0"), jobs.c.queue == kind.queue, jobs.c.task == kind.task
        old = select(jobs.c.id).where(*where, jobs.c.run_at < since).order_by(jobs.c.run_at)
        ended = update(jobs).where(
            jobs.c.id.in_(old.limit(BATCH).with_for_update(skip_locked=True))
        )
        values = {"status": Status.DEAD, "error": UNKNOWN_TASK, "finished_at": clock(0)}
        found += connection.execute(ended.values(values | {"wake_at": None}).returning(*ENDED))
    return found
