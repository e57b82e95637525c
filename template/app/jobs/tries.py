"""The tries of a job: who ran it, from when to when, and with which error it ended.

The statement that writes an outcome appends the try to a list in the row. A try that succeeded or
still runs isn't in that list: the row's other columns describe it.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Row
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from app.core.logging import cut
from app.jobs.table import JsonArray, Status

MAX_ERROR = 4_000  # characters of a job's error
KEPT = 10
LONGEST = 1000  # characters of an error that is kept of an earlier try


@dataclass(frozen=True)
class Try:
    """The first try has the number 1. One without an error succeeded, was handed back, or runs.

    `worker` is `host:pid`.
    """

    number: int
    started_at: datetime | None
    ended_at: datetime | None
    worker: str | None
    error: str | None


def this_worker() -> str:
    """This process, as rows name it: `host:pid`."""
    return f"{socket.gethostname()[:200]}:{os.getpid()}"


def text_of(error: Exception) -> str:
    """The error as text that a database can keep: cut, without NUL or half a surrogate pair."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = f"{type(error).__name__}, which can't say what it is"
    return cut(text, MAX_ERROR).encode(errors="replace").decode().replace("\0", "?")


_POSTGRESQL = """
  CASE WHEN jsonb_typeof(jobs.tries) <> 'array' OR jobs.tries IS NULL THEN '[]'::jsonb
    WHEN jsonb_array_length(jobs.tries) >= {kept} THEN jobs.tries - 0
    ELSE jobs.tries END
  || jsonb_build_array(jsonb_build_object('number', jobs.attempts, 'started_at', jobs.started_at,
    'ended_at', statement_timestamp(), 'worker', jobs.worker,
    'error', left({error}, {longest})))
"""

_SQLITE = """json_insert(
  CASE WHEN json_valid(jobs.tries) IS NOT 1 OR json_type(jobs.tries) <> 'array' THEN '[]'
    WHEN json_array_length(jobs.tries) >= {kept} THEN json_remove(jobs.tries, '$[0]')
    ELSE jobs.tries END,
  '$[#]', json_object('number', jobs.attempts, 'started_at', jobs.started_at || '+00:00',
    'ended_at', strftime('%Y-%m-%d %H:%M:%f000', 'now') || '+00:00', 'worker', jobs.worker,
    'error', substr({error}, 1, {longest})))
"""


class tried(GenericFunction[Any]):  # noqa: N801 - reads as the SQL function that it is
    """`tried(error)`: the list of a job's tries with the one that ends now."""

    type = JsonArray()
    inherit_cache = True


def tried_postgresql(error: str) -> str:
    """`tried` for a statement that is text. `error` is SQL."""
    return _POSTGRESQL.format(error=error, kept=KEPT, longest=LONGEST)


@compiles(tried, "postgresql")
def _tried_postgresql(element: tried, compiler: Any, **kw: Any) -> str:
    return f"({tried_postgresql(compiler.process(element.clauses, **kw))})"


@compiles(tried, "sqlite")
def _tried_sqlite(element: tried, compiler: Any, **kw: Any) -> str:
    error = compiler.process(element.clauses, **kw)
    return _SQLITE.format(error=error, kept=KEPT, longest=LONGEST)


_ONE: TypeAdapter[Try] = TypeAdapter(Try)


def tries_of(row: Row[Any]) -> list[Try]:
    """The last ten tries, oldest first. What somebody broke by hand is left out."""
    kept = row.tries if isinstance(row.tries, list) else []
    tries = [each for entry in kept if (each := _read(entry))]
    told = tries and tries[-1].number == row.attempts
    if row.status != Status.PENDING and row.started_at and not told:
        error = row.error if row.status == Status.DEAD else None
        last = Try(row.attempts, row.started_at, row.finished_at or None, row.worker, error)
        tries = [*tries, last][-KEPT:]
    return tries


def _read(entry: Any) -> Try | None:
    try:
        found = _ONE.validate_python(entry)
        return replace(found, started_at=_utc(found.started_at), ended_at=_utc(found.ended_at))
    except (ValidationError, OverflowError):  # the first day of the year 1 may be no day in UTC
        return None


def _utc(moment: datetime | None) -> datetime | None:
    return moment and moment.astimezone(UTC)
