"""Recognizes outages of the database, says what helps, and notices jumps of its clock.

The database's clock decides what is due. Each of its answers is compared with the monotonic clock
of this process, before and after the question. So a slow answer isn't taken for a jump.
"""

from __future__ import annotations

import mmap
import re
import struct
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError, TimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection, QueuePool

from app.config import get_settings
from app.core.drivers import renew_open_connections

log = structlog.get_logger(__name__)

# PostgreSQL's states: connection lost, out of resources, shutting down or starting. The rest of
# class 53 (53400) is for a statement that is too big, and will be so again.
STATES = ("08", "530", "531", "532", "533", "57P")
# A parallel query that needs more of /dev/shm than its container has is too big as well: 53100.
TOO_BIG = "shared memory segment"
# SQLite's names, because its one class of errors also stands for a missing table.
SQLITE = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_CANTOPEN")

READ_ONLY = ("25006", "SQLITE_READONLY")
# PostgreSQL's states of a statement that lost to another one, or that a time limit ended.
IN_THE_WAY = ("40001", "40P01", "55P03", "57014")
OURS = "of this service's database"
GIVEN_UP = "no answer in time"

MIGRATE = "run `poe migrate` (python -m app.migrate)"
BUSY = "something may hold what it needs: try again, or end that"
AWAY = "start it, or correct the address"
# What helps, by the beginning of an error's code. Errors without a code of their own are recognized
# by their text: those of a connection that PostgreSQL refuses, and most of SQLite's.
REMEDIES = (
    ("it is read-only: name the primary in DATABASE_URL", READ_ONLY, r"readonly database"),
    (
        "correct its user, its password or its rights",
        ("28", "42501"),
        r"authentication failed|no password supplied|pg_hba\.conf|permission denied"
        r'|role ".*" (does not exist|is not permitted)',
    ),
    (
        "raise its limit of connections, lower DATABASE_CONNECTIONS, or put PgBouncer between",
        ("53300",),
        r"too many (clients|connections)|connection slots|no more connections allowed",
    ),
    ("free its disk", ("53100", "SQLITE_FULL"), r"disk is full"),
    (BUSY, (*IN_THE_WAY, "SQLITE_BUSY", "SQLITE_LOCKED"), r"database is locked"),
    (MIGRATE, ("42P01", "42703"), r"no such (table|column)|has no column named"),
)
UNCODED = ("None", "SQLITE_ERROR")

# Seconds. A shorter jump isn't noticed: a lease has more left when it is extended.
TOLERANCE = min(2.0, get_settings().lease / 3)
RECENT = 600  # seconds for which a jump is shown

# When the last outage was logged. A process shares this memory with those that it forks.
_told = mmap.mmap(-1, 8)
_told_of: dict[str, float] = {}  # when another error was logged last, by the line's name


class AwayError(Exception):
    """Another server that is needed doesn't answer. The text is for clients."""


def mark_errors_of(engine: Engine) -> None:
    """Mark errors of this service's database: an outage of another one is the task's failure."""
    event.listen(engine, "handle_error", _mark)


def _mark(context: Any) -> None:
    if context.sqlalchemy_exception:
        context.sqlalchemy_exception.add_note(OURS)
        _hide_rows(context.sqlalchemy_exception)
        if is_read_only(context.sqlalchemy_exception):
            # This connection and others would stay read-only when the database no longer is.
            context.is_disconnect, context.invalidate_pool_on_disconnect = True, False
            renew_open_connections()


def _hide_rows(error: DBAPIError) -> None:
    """Leave out what PostgreSQL says after its message: it quotes rows and inner statements."""
    told = getattr(error.orig, "diag", None)
    if error.orig and told and told.message_primary:
        hint = f"\nHINT:  {told.message_hint}" if told.message_hint else ""
        whole, kept = str(error.orig), told.message_primary + hint
        error.orig.args = (kept,)
        error.args = (str(error.args[0]).replace(whole, kept),)


class OwnPool(QueuePool):
    """The pool of an engine for this service's database. It marks its own errors, too."""

    __module__ = QueuePool.__module__  # so SQLAlchemy's logger keeps its name

    def connect(self) -> PoolProxiedConnection:
        try:
            return super().connect()
        except TimeoutError as error:
            error.add_note(OURS)
            raise


class OwnAsyncPool(OwnPool, AsyncAdaptedQueuePool):
    """The same for an async engine."""

    __module__ = QueuePool.__module__


def is_outage(error: BaseException) -> bool:
    """Whether the same statement may succeed later. A read-only database counts as away."""
    if OURS not in getattr(error, "__notes__", ()):
        return False
    if not isinstance(error, DBAPIError):
        return isinstance(error, TimeoutError)
    if error.connection_invalidated:
        return True
    if name := getattr(error.orig, "sqlite_errorname", None):
        return str(name).startswith(SQLITE)
    if state := getattr(error.orig, "sqlstate", None):
        return str(state).startswith(STATES) and TOO_BIG not in str(error.orig)
    # The driver's own error: it could not connect, or else it refuses this very statement.
    return isinstance(error, OperationalError) and error.statement is None


def is_read_only(error: BaseException) -> bool:
    """Whether the database is a replica, or its file can't be written."""
    return _code(error).startswith(READ_ONLY)


def is_in_the_way(error: BaseException) -> bool:
    """Whether another statement or a time limit was in the way of one that is right in itself."""
    return _code(error) in IN_THE_WAY


def _code(error: BaseException) -> str:
    driver = getattr(error, "orig", None)
    return str(getattr(driver, "sqlite_errorname", None) or getattr(driver, "sqlstate", None))


def said(error: SQLAlchemyError) -> str:
    """What the server or its driver said, in one line."""
    if GIVEN_UP in getattr(error, "__notes__", ()):
        return GIVEN_UP
    return " ".join(str(getattr(error, "orig", None) or error).split())


def remedy(error: SQLAlchemyError) -> str:
    """What an operator can do. It is empty for an error that only a developer can mend."""
    code, text = _code(error), said(error)
    if text == GIVEN_UP:
        return BUSY
    for todo, codes, words in REMEDIES:
        if code.startswith(codes) or (code in UNCODED and re.search(words, text)):
            return todo
    return AWAY if is_outage(error) else ""


def advice(error: SQLAlchemyError) -> str:
    """What is wrong and what an operator can do, in one line."""
    parts = "DATABASE_URL" * is_outage(error), said(error), remedy(error)
    return ": ".join(filter(None, parts))


def tell(what: str, error: BaseException) -> None:
    """Log at most one line a second about outages, and one about other errors for each name.

    A process and its children share the line about outages.
    """
    if may_tell() if is_outage(error) else may_tell_of(what):
        log.warning(what, error=repr(error).splitlines()[0])


def may_tell() -> bool:
    """Whether no outage was logged within a second. If so, the caller logs one."""
    (last,) = struct.unpack_from("d", _told)
    if last <= (now := time.monotonic()) < last + 1:
        return False
    struct.pack_into("d", _told, 0, now)
    return True


def may_tell_of(what: str) -> bool:
    """Whether no other error of this name was logged within a second. If so, the caller logs it."""
    now = time.monotonic()
    if what in _told_of and now < _told_of[what] + 1:
        return False
    _told_of[what] = now
    return True


@dataclass(frozen=True)
class Jump:
    """`seconds` is negative if the clock went back. `noticed` is by the monotonic clock."""

    seconds: float
    noticed: float

    def __str__(self) -> str:
        return f"jumped {'forward' if self.seconds > 0 else 'back'} {abs(self.seconds):.0f} s"


class DatabaseClock:
    """What this process knows of the database's clock."""

    def __init__(self) -> None:
        self._ahead: tuple[float, float] | None = None  # of the monotonic clock: least, most
        self.jump: Jump | None = None  # the last one

    def note(self, now: datetime, asked: float) -> None:
        """Note that the clock said `now`, at some time after the monotonic time `asked`."""
        answered = time.monotonic()
        least, most = now.timestamp() - answered, now.timestamp() - asked
        if self._ahead:
            by = max(0.0, least - self._ahead[1]) + min(0.0, most - self._ahead[0])
            if abs(by) > TOLERANCE:
                self.jump = Jump(by, answered)
                log.warning("clock.jumped", seconds=round(by))
        self._ahead = least, most

    def latest(self) -> datetime:
        """The latest time that the clock can show now, unless it has just jumped forward."""
        if self._ahead is None:
            raise RuntimeError("the database's clock has not been asked yet")
        seconds = time.monotonic() + self._ahead[1] + TOLERANCE
        return datetime.fromtimestamp(seconds, UTC)

    def recent_jump(self) -> Jump | None:
        if self.jump and time.monotonic() - self.jump.noticed < RECENT:
            return self.jump
        return None


database_clock = DatabaseClock()
