"""What happens to a database: it is away or can't work, and its clock may jump.

The clock decides what is due. Beside a monotonic clock it goes evenly: what it says is noted with
the monotonic times before and after it was asked, so that an answer that took long is no jump.
"""

from __future__ import annotations

import mmap
import struct
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import Engine, event
from sqlalchemy.exc import (
    DBAPIError,
    DisconnectionError,
    OperationalError,
    SQLAlchemyError,
    TimeoutError,
)

from app.config import get_settings

log = structlog.get_logger(__name__)

# Of PostgreSQL: connection lost, out of resources, shutting down or starting.
STATES = ("08", "53", "57P")
# Of SQLite, which has one class for these and for a table that isn't there.
SQLITE = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_CANTOPEN")

READ_ONLY = ("25006", "SQLITE_READONLY")
OURS = "of this service's database"

# Seconds by which it may be out unnoticed: less than a lease has left when it is extended.
TOLERANCE = min(2.0, get_settings().lease / 3)
RECENT = 600  # seconds for which a jump is told of

# Memory that a process shares with those that it forks: when the last outage was told.
_told = mmap.mmap(-1, 8)


def mark_errors_of(engine: Engine) -> None:
    """A task may use other databases, too: their outages are its own failures."""
    event.listen(engine, "handle_error", _mark)


def _mark(context: Any) -> None:
    if context.sqlalchemy_exception:
        context.sqlalchemy_exception.add_note(OURS)


def is_outage(error: BaseException) -> bool:
    """The same statement may succeed later."""
    if isinstance(error, TimeoutError | DisconnectionError):  # of the pool
        return True
    if not isinstance(error, DBAPIError) or OURS not in getattr(error, "__notes__", ()):
        return False
    if error.connection_invalidated:
        return True
    if name := getattr(error.orig, "sqlite_errorname", None):
        return str(name).startswith(SQLITE)
    state = getattr(error.orig, "sqlstate", None)
    return isinstance(error, OperationalError) if state is None else state.startswith(STATES)


def is_read_only(error: BaseException) -> bool:
    """The database is a replica, or its file can't be written."""
    driver = getattr(error, "orig", None)
    code = getattr(driver, "sqlite_errorname", None) or getattr(driver, "sqlstate", None)
    return str(code).startswith(READ_ONLY)


def said(error: SQLAlchemyError) -> str:
    """By the server or its driver, as one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def tell(what: str, error: BaseException) -> None:
    """One line in the log; of an outage at most one a second, by a process and its children."""
    if is_outage(error):
        (last,) = struct.unpack_from("d", _told)
        if last <= (now := time.monotonic()) < last + 1:
            return
        struct.pack_into("d", _told, 0, now)
    log.warning(what, error=repr(error).splitlines()[0])


@dataclass(frozen=True)
class Jump:
    """`seconds` are negative where the clock went back; `noticed` is monotonic."""

    seconds: float
    noticed: float

    def __str__(self) -> str:
        return f"jumped {'forward' if self.seconds > 0 else 'back'} {abs(self.seconds):.0f} s"


class DatabaseClock:
    """What this process knows of the database's clock."""

    def __init__(self) -> None:
        self._ahead: tuple[float, float] | None = None  # of the monotonic clock, at least and most
        self.jump: Jump | None = None  # the last one

    def note(self, now: datetime, asked: float) -> None:
        """The clock said `now`, some time after the monotonic time `asked`."""
        answered = time.monotonic()
        least, most = now.timestamp() - answered, now.timestamp() - asked
        if self._ahead:
            by = max(0.0, least - self._ahead[1]) + min(0.0, most - self._ahead[0])
            if abs(by) > TOLERANCE:
                self.jump = Jump(by, answered)
                log.warning("clock.jumped", seconds=round(by))
        self._ahead = least, most

    def latest(self) -> datetime:
        """The latest that it can be, unless it has just jumped forward. Note it first."""
        if self._ahead is None:
            raise RuntimeError("the database's clock has not been asked yet")
        seconds = time.monotonic() + self._ahead[1] + TOLERANCE
        return datetime.fromtimestamp(seconds, UTC)

    def recent_jump(self) -> Jump | None:
        if self.jump and time.monotonic() - self.jump.noticed < RECENT:
            return self.jump
        return None


database_clock = DatabaseClock()
