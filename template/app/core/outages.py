"""Tells a database that couldn't be reached, or couldn't work, from one that refused."""

from __future__ import annotations

import mmap
import struct
import time
from typing import Any

import structlog
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError, TimeoutError

log = structlog.get_logger(__name__)

# Of PostgreSQL: connection lost, out of resources, shutting down or starting.
STATES = ("08", "53", "57P")
# Of SQLite, which has one class for these and for a table that isn't there.
SQLITE = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_CANTOPEN")

READ_ONLY = ("25006", "SQLITE_READONLY")
OURS = "of this service's database"

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


def tell(what: str, error: BaseException) -> None:
    """One line in the log; of an outage at most one a second, by a process and its children."""
    if is_outage(error):
        (last,) = struct.unpack_from("d", _told)
        if last <= (now := time.monotonic()) < last + 1:
            return
        struct.pack_into("d", _told, 0, now)
    log.warning(what, error=repr(error).splitlines()[0])
