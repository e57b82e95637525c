"""Statements that claim a single job, extend leases, and take back what a dead host held."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache, lru_cache
from itertools import product
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Case,
    Column,
    Connection,
    Integer,
    Row,
    Select,
    String,
    Update,
    Uuid,
    and_,
    bindparam,
    case,
    extract,
    func,
    literal_column,
    null,
    select,
    text,
    true,
    tuple_,
    union_all,
    update,
)

from app.config import get_settings
from app.core.database import IS_SQLITE
from app.jobs.looks import AHEAD, COLUMNS, COUNTED, LAZILY, WAITED, Taken, Wanted, as_taken
from app.jobs.table import (
    FREE,
    HEAD_START,
    MAX_COUNT,
    PAUSED,
    TABLE_SIZE,
    Status,
    db_time,
    jobs,
    note_size,
)
from app.jobs.tries import this_worker, tried

Names = tuple[str, ...]

BATCH = 100  # jobs in one statement; more would hold SQLite's lock for too long
CORRECTED = 10_000  # the same where a jump of the clock keeps all jobs from being due
WORKER_LOST = "WorkerLost: each worker that ran this job died"
LEASE_LOST = "WorkerLost: it died, or was silent for longer than its lease"

# Written as text: with a bound value the planner couldn't use the partial index.
WAITS, RUNS = text("status = 'pending'"), text("status = 'running'")
DUE = jobs.c.run_at <= db_time(0)
CARRIED = text(f"jobs.queue NOT IN ({PAUSED})")
LAZY = true() if IS_SQLITE else text(LAZILY)
_TAKEN = [
    *COLUMNS,
    literal_column(WAITED).label("waited"),
    literal_column(TABLE_SIZE).label("size"),
]
# What the report of an end needs.
ENDED = [jobs.c[name] for name in ("id", "task", "queue", "status", "attempts", "error", "origin")]


@cache  # SQLAlchemy compiles a statement once, as long as it stays the same object
def _claim(bounded: bool) -> Update:
    mine = select(jobs.c.id).where(
        jobs.c.id == bindparam("job_id", type_=Uuid),
        jobs.c.task == bindparam("name", type_=String),
        WAITS,
        DUE,
        CARRIED,
        text(COUNTED),
    )
    if bounded:
        others = jobs.alias("others")
        running = others.c.task == bindparam("name"), text("others.status = 'running'")
        busy = select(func.count()).select_from(others).where(*running)
        mine = mine.where(busy.scalar_subquery() < bindparam("max_running", type_=Integer))
    # A claim that waited for a locked row would keep the whole host from looking.
    free = jobs.c.id.in_(mine.with_for_update(**FREE))
    claimed = update(jobs).where(free, LAZY)
    return claimed.values(
        status=Status.RUNNING,
        attempts=jobs.c.attempts + 1,
        started_at=db_time(0),
        wake_at=db_time(get_settings().lease),
        worker=bindparam("its_worker", type_=String),
    ).returning(*_TAKEN)


def claim(connection: Connection, job_id: UUID, task: str, max_running: int | None) -> Taken | None:
    """Claim this job of this task, if it is due and fewer than `max_running` of the task run.

    With `max_running` it needs a transaction: else two hosts could count before either claims.
    """
    values = {"job_id": job_id, "name": task, "max_running": max_running}
    values["its_worker"] = this_worker()
    if max_running is None:
        del values["max_running"]
    elif not IS_SQLITE:
        connection.execute(_ONE_AT_A_TIME, {"name": task})
    row = connection.execute(_claim(max_running is not None), values).first()
    if row is None:
        return None
    note_size(row.size)
    return as_taken(row)


# A host that froze in its claim would keep all others from the jobs of the task.
_ONE_AT_A_TIME = select(
    func.set_config("idle_in_transaction_session_timeout", "2s", True),
    func.pg_advisory_xact_lock(func.hashtext(bindparam("name", type_=String))),
)


def due_one_by_one(
    connection: Connection, wanted: Wanted, slots: int, suspects: bool
) -> Sequence[Row[Any]]:
    """Due jobs of bounded tasks, or whose worker died. They are claimed singly, oldest first.

    There are more than slots, because the first ones may be at their tasks' limits.
    """
    paused = set(connection.scalars(text(PAUSED)))
    carried = tuple(queue for queue in wanted.queues if queue not in paused)
    due = _due_one_by_one(carried, tuple(wanted.tasks), tuple(wanted.bounded), suspects)
    return connection.execute(due, {"most": slots + AHEAD}).all()


@lru_cache(maxsize=100)
def _due_one_by_one(queues: Names, tasks: Names, bounded: Names, suspects: bool) -> Select[Any]:
    known = jobs.c.queue.in_(queues) & jobs.c.task.in_(tasks + bounded)
    crashed = known & text("crashes > 0")
    lanes: list[Any] = [crashed if suspects else crashed & ~is_suspect(jobs.c.crashes)]
    for queue, task in product(queues, bounded):
        lanes.append((jobs.c.queue == queue) & (jobs.c.task == task) & text("crashes = 0"))
    due = select(jobs.c.id, jobs.c.task, jobs.c.crashes, jobs.c.run_at).where(
        WAITS, DUE, text(COUNTED)
    )
    oldest = due.order_by(jobs.c.run_at).limit(bindparam("most"))
    found = union_all(*(select(oldest.where(lane).subquery()) for lane in lanes)).subquery()
    return select(found).order_by(found.c.run_at)


def is_suspect(crashes: Any) -> Any:
    """Whether one more crash makes a job with so many crashes dead. It may be a column."""
    return crashes >= get_settings().max_crashes - 1


def extend(
    connection: Connection, held: Sequence[tuple[UUID, int]], *, waits: bool = False
) -> dict[UUID, bool]:
    """Extend the leases of these (id, attempt) pairs. Returns those that are still held.

    Unless it waits, a row that somebody has locked holds up no other one. It stays as it is, and
    has False: nobody can take it back meanwhile.
    """
    mine = tuple_(jobs.c.id, jobs.c.attempts).in_(held) & (jobs.c.status == Status.RUNNING)
    free = select(jobs.c.id).where(mine).with_for_update(skip_locked=not waits, key_share=True)
    lease = db_time(get_settings().lease)
    extended = update(jobs).where(jobs.c.id.in_(free), LAZY).values(wake_at=lease)
    if IS_SQLITE:
        return dict.fromkeys(connection.scalars(extended.returning(jobs.c.id)), True)
    done = extended.returning(jobs.c.id).cte()
    found = select(jobs.c.id, jobs.c.id.in_(select(done.c.id))).where(mine)
    return {row[0]: row[1] for row in connection.execute(found)}


def is_cancelled(connection: Connection, job_id: UUID) -> bool:
    return connection.scalar(select(jobs.c.status).where(jobs.c.id == job_id)) == Status.CANCELLED


def take_back(connection: Connection, latest: datetime) -> Sequence[Row[Any]]:
    """Make jobs whose lease has ended pending again, or dead after too many crashes.

    `latest` is the latest that the database's clock can show, unless it has jumped.
    """
    # coalesce() keeps the planner from the index of `wake_at`, which has the waiting jobs as well.
    lease_end = func.coalesce(jobs.c.wake_at, jobs.c.wake_at)
    ended = lease_end <= db_time(0), lease_end <= bindparam("latest", type_=db_time.type)
    lost = select(jobs.c.id).where(RUNS, *ended).limit(BATCH)
    poison = is_suspect(jobs.c.crashes)
    values = {
        "status": case((poison, Status.DEAD), else_=Status.PENDING),
        "crashes": _one_more(jobs.c.crashes),
        "max_attempts": _one_more(jobs.c.max_attempts),
        "pushes": 0,
        "wake_at": case((poison, null()), else_=db_time(HEAD_START)),
        "finished_at": case((poison, db_time(0)), else_=null()),
        "error": case((poison, WORKER_LOST), else_=jobs.c.error),
        "tries": tried(LEASE_LOST),
    }
    back = update(jobs).where(jobs.c.id.in_(lost.with_for_update(**FREE)))
    back = back.values(values).returning(*ENDED)
    return connection.execute(back, {"latest": latest}).all()


def bring_nearer(connection: Connection) -> bool:
    """Correct the times of jobs after the database's clock went back: they are too far ahead.

    Returns whether there may be more that wait. A job that was submitted for later keeps its time,
    for the caller may have named that time.
    """
    began = func.coalesce(jobs.c.started_at, jobs.c.created_at)
    was_due = (jobs.c.run_at <= jobs.c.created_at) | jobs.c.started_at.is_not(None)
    backoff = extract("epoch", jobs.c.run_at) - extract("epoch", began)
    delay = case((jobs.c.run_at > began, backoff), else_=0)
    ahead = WAITS, jobs.c.run_at > db_time(0), began > db_time(0), was_due
    far = select(jobs.c.id).where(*ahead).limit(CORRECTED)
    found = far.with_for_update(**FREE).cte()  # which is read once
    # `started_at` as well: the next process that notices the jump must change nothing.
    started = case((jobs.c.started_at > db_time(0), db_time(0)), else_=jobs.c.started_at)
    late = db_time(delay + HEAD_START)
    times = {"run_at": db_time(delay), "wake_at": late, "started_at": started}
    nearer = update(jobs).where(jobs.c.id.in_(select(found.c.id))).returning(jobs.c.id)
    moved = connection.scalars(nearer.values(times)).all()
    early = update(jobs).where(RUNS, ~DUE)
    connection.execute(early.values(run_at=db_time(0)))  # due if taken back
    for state, most in ((and_(WAITS, DUE), HEAD_START), (RUNS, get_settings().lease)):
        longer = update(jobs).where(state, jobs.c.wake_at > db_time(most))
        connection.execute(longer.values(wake_at=db_time(most)))
    return len(moved) == CORRECTED


def _one_more(count: Column[int]) -> Case[int]:
    """A count at its limit stays: an overflow would fail the statement for all jobs."""
    return case((count < MAX_COUNT, count + 1), else_=MAX_COUNT)


def note_refusal(connection: Connection, job_id: UUID, attempt: int) -> Row[Any] | None:
    """Note when the job's arguments were first refused. Returns None if the lease was lost."""
    mine = jobs.c.id == job_id, jobs.c.attempts == attempt, RUNS
    noted = update(jobs).where(*mine, LAZY)
    since = func.coalesce(jobs.c.refused_at, db_time(0))
    shown = jobs.c.signature, jobs.c.refused_at, db_time(0).label("now")
    return connection.execute(noted.values(refused_at=since).returning(*shown)).first()
