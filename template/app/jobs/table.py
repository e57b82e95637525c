"""The tables, the database's clock, which alone says what is due, and how a worker holds a job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    BindParameter,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    Update,
    Uuid,
    and_,
    bindparam,
    case,
    false,
    func,
    null,
    or_,
    select,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from app.config import get_settings
from app.jobs.contract import registry

BATCH = 100  # rows; more would hold SQLite's lock, and the loop of a request, for too long
WORKER_LOST = "WorkerLost: each worker that ran this job died"
UNKNOWN_TASK = "UnknownTask: no release that ran since this job was due has such a task"
HEAD_START = 5  # seconds that a push has before the relay pushes the row again, times the pushes

metadata = MetaData()


class Status(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime, also where the database (SQLite) keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class clock(GenericFunction[datetime]):  # noqa: N801 - reads as the SQL function that it is
    """`clock(seconds)`: when the statement began, by the database's clock, moved by seconds."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(clock, "postgresql")
def _clock_postgresql(element: clock, compiler: Any, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    # Not clock_timestamp(), which may change from row to row: no index would serve it.
    return f"(statement_timestamp() + make_interval(secs => {seconds}))"


@compiles(clock, "sqlite")
def _clock_sqlite(element: clock, compiler: Any, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%.3f seconds', {seconds}))"


def _index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(
        name, *columns, unique=unique, postgresql_where=text(where), sqlite_where=text(where)
    )


HOLDS_KEY = "key IS NOT NULL AND (keep_key OR status IN ('pending', 'running'))"

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("task", String(200), nullable=False),
    Column("queue", String(100), nullable=False),
    Column("args", JSON(none_as_null=True), comment="gone once the job has succeeded"),
    Column("key", String(300), comment="unique per task while the job is unfinished"),
    Column("keep_key", Boolean, nullable=False, server_default=false()),
    Column("status", String(20), nullable=False, server_default=Status.PENDING),
    # Only grows, so that it fences what an old claim still wants to write.
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False),
    Column("crashes", Integer, nullable=False, server_default="0"),
    Column("pushes", Integer, nullable=False, server_default="0"),
    Column("result", JSON(none_as_null=True)),
    Column("error", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("run_at", UtcDateTime, nullable=False, comment="not before"),
    Column("wake_at", UtcDateTime, comment="when the relay looks next: push due or lease end"),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    _index("jobs_wake_at", "wake_at", where="wake_at IS NOT NULL"),
    _index("jobs_key", "task", "key", where=HOLDS_KEY, unique=True),
    _index("jobs_dead", "finished_at", where="status = 'dead'"),
    _index("jobs_running", "task", where="status = 'running'"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("declared", JSON(none_as_null=True), comment="what the code last said; null: by REST"),
    Column("definition", JSON, nullable=False, comment="what is in force: trigger, args, grace"),
    Column("task", String(200), nullable=False),
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("next_tick", UtcDateTime, comment="null: over"),
    Column("last_tick", UtcDateTime),
    Column("last_job_id", Uuid),
    Column("missed_since", UtcDateTime),
    Column("missed_until", UtcDateTime),
    _index("schedules_next_tick", "next_tick", where="next_tick IS NOT NULL AND NOT paused"),
)


@cache  # a statement that stays the same object is compiled, and its key made, once
def claim(task: str, max_running: int | None) -> Update:
    """One statement takes the due job `job_id`: counts the attempt and starts the lease.

    At most `max_running` of the task run then, and the job has crashed at most `max_crashes` times.
    """
    mine = update(jobs).where(
        jobs.c.id == bindparam("job_id"),
        jobs.c.status == Status.PENDING,
        jobs.c.run_at <= clock(0),
        jobs.c.crashes <= bindparam("max_crashes"),
    )
    if max_running is not None:
        others = jobs.alias()
        running = others.c.task == task, others.c.status == Status.RUNNING
        busy = select(func.count()).select_from(others).where(*running)
        mine = mine.where(busy.scalar_subquery() < max_running)
    return mine.values(
        status=Status.RUNNING,
        attempts=jobs.c.attempts + 1,
        started_at=clock(0),
        wake_at=clock(get_settings().lease),
    ).returning(jobs.c.args, jobs.c.attempts, jobs.c.max_attempts)


def wait_for_a_slot(job_id: UUID) -> Update:
    """After a claim that was refused though due: the relay pushes it in a second; its crashes."""
    pending = update(jobs).where(jobs.c.id == job_id, jobs.c.status == Status.PENDING)
    due = pending.where(jobs.c.run_at <= clock(0))
    return due.values(wake_at=clock(1)).returning(jobs.c.crashes)


def extend(claims: Sequence[tuple[UUID, int]]) -> Update:
    """Extend the leases of these (id, attempt); returns the ids that are still held."""
    mine = update(jobs).where(tuple_(jobs.c.id, jobs.c.attempts).in_(claims))
    held = mine.where(jobs.c.status == Status.RUNNING)
    return held.values(wake_at=clock(get_settings().lease)).returning(jobs.c.id)


def outcome(job_id: UUID | BindParameter[UUID], attempt: int | BindParameter[int]) -> Update:
    """The fence: matches no row once the job was taken back, cancelled or run by another."""
    return update(jobs).where(
        jobs.c.id == job_id, jobs.c.status == Status.RUNNING, jobs.c.attempts == attempt
    )


def take_due(queues: list[str], *, judge_leases: bool = True) -> Update:
    """One statement for every row that is due: not pushed, delay over, retry due, lease ended."""
    due = (
        select(jobs.c.id)
        .where(jobs.c.wake_at <= clock(0), jobs.c.queue.in_(queues))
        .where(true() if judge_leases else jobs.c.status != Status.RUNNING)
        .order_by(jobs.c.wake_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    lost = jobs.c.status == Status.RUNNING
    settings = get_settings()
    poison = and_(lost, jobs.c.crashes + 1 >= settings.max_crashes)
    too_old = jobs.c.run_at < clock(-settings.unknown_task_grace)
    unknown = and_(~lost, jobs.c.task.not_in(list(registry())), too_old)
    dead = or_(poison, unknown)
    crash = case((lost, 1), else_=0)
    values = {
        "status": case((dead, Status.DEAD), else_=Status.PENDING),
        "crashes": jobs.c.crashes + crash,
        "max_attempts": jobs.c.max_attempts + crash,
        "pushes": case((lost, 1), else_=jobs.c.pushes + 1),
        "wake_at": case((dead, null()), else_=clock(HEAD_START * (jobs.c.pushes + 1))),
        "finished_at": case((dead, clock(0)), else_=null()),
        "error": case((poison, WORKER_LOST), (unknown, UNKNOWN_TASK), else_=jobs.c.error),
    }
    shown = (jobs.c.status, jobs.c.error, jobs.c.pushes)
    returned = (jobs.c.id, jobs.c.task, jobs.c.queue, *shown)
    return update(jobs).where(jobs.c.id.in_(due)).values(values).returning(*returned)
