"""The tables, and the database's clock, which alone says what is due."""

from __future__ import annotations

from bisect import bisect
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    false,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import TypeEngine

from app.core.database import IS_SQLITE, Tolerant, UtcDateTime
from app.core.drivers import renew_open_connections

MAX_COUNT = 2**31 - 1  # the largest count that a column keeps
HEAD_START = 5  # seconds after which a message that was sent for a due job counts as late

# An INSERT that has ON CONFLICT.
upsert: Any = (sqlite if IS_SQLITE else postgresql).insert

metadata = MetaData()


class Status(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"


class Id(Tolerant[UUID]):
    impl = Uuid
    cache_ok = True


class Json(Tolerant[Any]):
    impl = JSON
    cache_ok = True


class JsonArray(Json):
    """A list to which statements append."""

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        kind = postgresql.JSONB if dialect.name == "postgresql" else JSON
        return dialect.type_descriptor(kind(none_as_null=True))


class Flag(Tolerant[bool]):
    impl = Boolean
    cache_ok = True


class Count(TypeDecorator[int]):
    """An integer. Any other value, which SQLite may keep, is read as MAX_COUNT."""

    impl = Integer
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return value if value is None or type(value) is int else MAX_COUNT


class db_time(GenericFunction[datetime]):  # noqa: N801 - reads as the SQL function that it is
    """`db_time(seconds)`: the database's time when the statement began, plus so many seconds."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(db_time, "postgresql")
def _db_time_postgresql(element: db_time, compiler: Any, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    # Not clock_timestamp(), which may change from row to row: no index would serve it.
    return f"(statement_timestamp() + make_interval(secs => {seconds}))"


@compiles(db_time, "sqlite")
def _db_time_sqlite(element: db_time, compiler: Any, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    # Null for null, as in PostgreSQL; printf() would make it 0.
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', round({seconds}, 3) || ' seconds')"


async def database_now(session: AsyncSession) -> datetime:
    return (await session.execute(select(db_time(0)))).scalar_one()


def _index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(
        name, *columns, unique=unique, postgresql_where=text(where), sqlite_where=text(where)
    )


# For `with_for_update`: rows that nobody else changes. Another table may refer to them.
FREE: Any = {"skip_locked": True, "key_share": True}
WAITS = "status = 'pending'"
HAS_ENDED, LISTED = "finished_at IS NOT NULL", "status || '' = 'pending'"
HOLDS_KEY = "key IS NOT NULL AND (keep_key OR status IN ('pending', 'running'))"

jobs = Table(
    "jobs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("task", String(200), nullable=False),
    Column("queue", String(100), nullable=False),
    Column("args", Json(none_as_null=True), comment="gone once the job has succeeded"),
    Column("key", String(300), comment="unique per task while the job is unfinished"),
    Column("keep_key", Flag, nullable=False, server_default=false()),
    Column("status", String(20), nullable=False, server_default=Status.PENDING),
    # It only grows, so that a host with an older claim can't write its outcome.
    Column("attempts", Count, nullable=False, server_default="0"),
    Column("max_attempts", Count, nullable=False),
    Column("signature", String(16), comment="of its task where it was submitted"),
    Column("refused_at", UtcDateTime, comment="when a host first didn't take its arguments"),
    Column("crashes", Count, nullable=False, server_default="0"),
    Column("pushes", Count, nullable=False, server_default="0", comment="messages sent for it"),
    Column("result", Json(none_as_null=True)),
    Column("error", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("run_at", UtcDateTime, nullable=False, comment="not before"),
    Column("wake_at", UtcDateTime, comment="when its lease ends, or its message counts as late"),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("worker", String(220), comment="host:pid of the process that took it last"),
    Column("tries", JsonArray, comment="the last ten that ended, but for one that succeeded"),
    Column("origin", Json(none_as_null=True), comment="what submitted it"),
    _index("jobs_wake_at", "wake_at", where="wake_at IS NOT NULL"),
    _index("jobs_key", "task", "key", where=HOLDS_KEY, unique=True),
    _index("jobs_dead", "finished_at", where="status = 'dead'"),
    _index("jobs_running", "task", where="status = 'running'"),
    # Jobs that never crashed, in the order in which hosts take them, task by task.
    _index("jobs_due", "queue", "task", "run_at", where=f"{WAITS} AND crashes = 0"),
    _index("jobs_crashed", "queue", "run_at", where=f"{WAITS} AND crashes > 0"),
    _index("jobs_rung", "queue", "wake_at", where=f"{WAITS} AND pushes > 0"),
    # For lists of jobs. The planner doesn't see that hosts' statements imply these conditions.
    _index("jobs_waiting", "created_at", "id", where=LISTED),
    _index("jobs_ended", "status", "created_at", "id", where=HAS_ENDED),
)

processes = Table(
    "processes",
    metadata,
    Column("id", Id, primary_key=True),
    Column("host", String(200), nullable=False, comment="the machine's name"),
    Column("pid", Count, nullable=False),
    Column("backend", String(50), comment="whose queues it hosts; null: it hosts none"),
    Column("queues", Json, nullable=False),
    Column("tasks", Json, nullable=False, comment="that it knows, with their signatures"),
    Column("slots", Count, nullable=False),
    Column("busy", Count, nullable=False, comment="slots, when it was seen"),
    Column("started_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("version", String(100), comment="of the service: RELEASE"),
)

queues = Table(
    "queues",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("paused_at", UtcDateTime, comment="null: it isn't paused"),
)
NOT_PAUSED = "NOT paused"  # as text: SQLite would not use the index for `paused = 0`
PAUSED = "SELECT name FROM queues WHERE paused_at IS NOT NULL"

known_tasks = Table(
    "known_tasks",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("signature", String(16), primary_key=True, server_default=""),
    Column("seen_at", UtcDateTime, nullable=False, comment="when a live process last knew it"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("declared", Json(none_as_null=True), comment="what the code last said; null: by REST"),
    Column("definition", Json, nullable=False, comment="what is in force: trigger, args, grace"),
    Column("task", String(200), nullable=False),
    Column("paused", Flag, nullable=False, server_default=false()),
    Column("revision", Count, nullable=False, server_default="1"),
    Column("next_tick", UtcDateTime, comment="null: over"),
    Column("last_tick", UtcDateTime),
    Column("last_job_id", Id),
    Column("missed_since", UtcDateTime),
    Column("missed_until", UtcDateTime),
    _index("schedules_next_tick", "next_tick", where=f"next_tick IS NOT NULL AND {NOT_PAUSED}"),
)

TABLE_SIZE = "0" if IS_SQLITE else "pg_relation_size('jobs')"
_SIZES = 2**16, 2**18, 2**20, 2**22  # bytes
_size: int | None = None


def note_size(size: int) -> None:
    """Renew this process's connections when the table `jobs` has grown over one of `_SIZES`.

    A connection to PostgreSQL keeps the plans of its statements. A plan for a small table reads all
    rows, and would do so until the server next analyzes the table, which may be a minute later.
    Whoever claims jobs calls this: its statements are the ones that come often.
    """
    global _size
    if _size is not None and bisect(_SIZES, size) > bisect(_SIZES, _size):
        renew_open_connections()
    _size = size
