"""A look: one statement takes as many due jobs as a host has free slots, the oldest first.

It asks the index `jobs_due` for each pair of a queue and a task, so that it never reads rows that
wait for other hosts. A job of a task with `max_running`, or whose worker died, isn't taken: the
look only says that there are such jobs. They are claimed one by one (`claims.py`).

While an old transaction is open, PostgreSQL keeps an entry in that index for each job that has been
taken since. So most looks begin where the last one did, and read no such entry twice.

PostgreSQL plans a look as long as it runs it. So it keeps one plan for all values: those that would
change the plan are each in a SELECT of their own, where the planner doesn't see them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Connection, Row, TextualSelect, column, text

from app.config import get_settings
from app.core.database import IS_SQLITE
from app.jobs.contract import Arguments, registry
from app.jobs.endings import Origin, origin_of
from app.jobs.table import MAX_COUNT, PAUSED, TABLE_SIZE, jobs, note_size
from app.jobs.tries import this_worker

EVER = "-infinity"  # a look from there on sees all that is due
AHEAD = 50  # jobs that a look considers beyond its slots, as other hosts take the first ones, too


@dataclass(frozen=True)
class Wanted:
    """The queues and tasks whose jobs a host takes. Tasks in `bounded` have a `max_running`."""

    queues: list[str]
    tasks: list[str]
    bounded: list[str]

    @classmethod
    def by_host(cls, queues: list[str], at_limit: Mapping[str, float]) -> Self:
        """What a host wants. Tasks in `at_limit` are left out until these monotonic times."""
        now, known = time.monotonic(), registry()
        bounded = {name for name, task in known.items() if task.max_running is not None}
        may_run = sorted(name for name in bounded if at_limit.get(name, now) <= now)
        return cls(queues, sorted(known.keys() - bounded), may_run)


@dataclass(frozen=True, slots=True)
class Taken:
    """A job that has just been claimed."""

    id: UUID
    task: str
    args: Arguments
    attempt: int
    max_attempts: int
    origin: Origin = field(default_factory=dict)
    queue: str = ""
    waited: float | None = None  # seconds from when it was due to this claim


@dataclass(frozen=True, slots=True)
class Look:
    """`wait`: seconds until the next job falls due. `one_by_one`: whether some must be claimed so.

    `oldest`: when the oldest job that it saw fell due, as the database writes it.
    """

    taken: list[Taken]
    wait: float | None
    one_by_one: bool
    oldest: str = EVER


WAITED = (
    "(julianday(started_at) - julianday(run_at)) * 86400"
    if IS_SQLITE
    else "CASE WHEN isfinite(run_at) THEN extract(epoch FROM started_at - run_at)::float8 END"
)
SHOWN = "id, task, args, attempts, max_attempts, origin, queue"
COLUMNS = [jobs.c[name] for name in SHOWN.split(", ")]
COUNTED = f"attempts < {MAX_COUNT}"  # an overflow would fail the statement for all jobs

# A claim needn't wait for the disk: if the database crashes and forgets it, the job is pending.
LAZILY = "(SELECT set_config('synchronous_commit', 'off', true)) = 'off'"

_POSTGRESQL = f"""
WITH carried AS (
  SELECT queue FROM unnest((SELECT CAST(:queues AS text[]))) AS q (queue)
  WHERE queue NOT IN ({PAUSED})
), free AS (
  SELECT * FROM carried CROSS JOIN unnest((SELECT CAST(:tasks AS text[]))) AS t (task)
), bounded AS (
  SELECT * FROM carried CROSS JOIN unnest((SELECT CAST(:bounded AS text[]))) AS t (task)
), due AS (
  SELECT found.* FROM free CROSS JOIN LATERAL (
    SELECT id, run_at FROM jobs
    WHERE status = 'pending' AND crashes = 0 AND queue = free.queue AND task = free.task
      AND run_at >= (SELECT CAST(:since AS timestamptz)) AND run_at <= statement_timestamp()
      AND {COUNTED}
    ORDER BY queue, task, run_at LIMIT considered
  ) AS found
), taken AS (
  UPDATE jobs SET status = 'running', attempts = attempts + 1, started_at = statement_timestamp(),
    worker = :worker, wake_at = statement_timestamp() + make_interval(secs => :lease)
  WHERE {LAZILY} AND id = ANY(ARRAY(
    SELECT id FROM jobs
    WHERE id = ANY(ARRAY(SELECT id FROM due ORDER BY run_at LIMIT considered))
      AND status = 'pending' AND {COUNTED} AND run_at <= statement_timestamp()
    ORDER BY run_at LIMIT :slots FOR NO KEY UPDATE SKIP LOCKED
  ))
  RETURNING {SHOWN}, {WAITED} AS waited
), next AS (
  SELECT min(found.run_at) AS run_at
  FROM (SELECT * FROM free UNION ALL SELECT * FROM bounded) AS pair CROSS JOIN LATERAL (
    SELECT run_at FROM jobs
    WHERE status = 'pending' AND crashes = 0 AND queue = pair.queue AND task = pair.task
      AND run_at > statement_timestamp() AND isfinite(run_at)
    ORDER BY queue, task, run_at LIMIT 1
  ) AS found
)
SELECT extract(epoch FROM next.run_at - statement_timestamp())::float8 AS wait,
  (SELECT coalesce(min(run_at), statement_timestamp())::text FROM due) AS oldest,
  EXISTS (
    SELECT FROM bounded CROSS JOIN LATERAL (
      SELECT FROM jobs
      WHERE status = 'pending' AND crashes = 0 AND queue = bounded.queue AND task = bounded.task
        AND run_at <= statement_timestamp() AND {COUNTED}
      ORDER BY queue, task, run_at LIMIT 1
    ) AS found
  ) OR EXISTS (
    SELECT FROM jobs
    WHERE status = 'pending' AND crashes > 0 AND run_at <= statement_timestamp() AND {COUNTED}
      AND queue = ANY(ARRAY(SELECT queue FROM carried))
      AND (task = ANY(:tasks) OR task = ANY(:bounded))
  ) AS one_by_one, {TABLE_SIZE} AS size, taken.*
FROM next LEFT JOIN taken ON true
"""  # noqa: S608 - nothing of it comes from outside

_NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
_QUEUES = f"(SELECT value FROM json_each(:queues) WHERE value NOT IN ({PAUSED}))"  # noqa: S608
_PAIR = "status = 'pending' AND crashes = 0 AND queue = q.value AND task = t.value"
_DUE = f"{_PAIR} AND run_at <= {_NOW} AND {COUNTED}"
# Reading takes no lock, so that a look which finds nothing keeps nobody from writing.
_SEE_SQLITE = f"""
SELECT (
    SELECT (julianday(min(run_at)) - julianday('now')) * 86400 FROM (
      SELECT (
        SELECT run_at FROM jobs WHERE {_PAIR} AND run_at > {_NOW} ORDER BY run_at LIMIT 1
      ) AS run_at FROM {_QUEUES} AS q, json_each(:all) AS t
    )
  ) AS wait,
  EXISTS (
    SELECT 1 FROM {_QUEUES} AS q, json_each(:tasks) AS t
    WHERE EXISTS (SELECT 1 FROM jobs WHERE {_DUE})
  ) AS due,
  EXISTS (
    SELECT 1 FROM {_QUEUES} AS q, json_each(:bounded) AS t
    WHERE EXISTS (SELECT 1 FROM jobs WHERE {_DUE})
  ) OR EXISTS (
    SELECT 1 FROM jobs
    WHERE status = 'pending' AND crashes > 0 AND run_at <= {_NOW} AND {COUNTED}
      AND queue IN {_QUEUES}
      AND task IN (SELECT value FROM json_each(:all))
  ) AS one_by_one
"""  # noqa: S608 - nothing of it comes from outside
_TAKE_SQLITE = f"""
UPDATE jobs SET status = 'running', attempts = attempts + 1, started_at = {_NOW}, worker = :worker,
  wake_at = strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%.3f seconds', :lease))
WHERE rowid IN (
  SELECT job.rowid FROM {_QUEUES} AS q, json_each(:tasks) AS t
  JOIN jobs AS job ON job.rowid IN (
    SELECT rowid FROM jobs WHERE {_DUE} ORDER BY run_at LIMIT :slots
  ) ORDER BY job.run_at LIMIT :slots
)
RETURNING {SHOWN}, {WAITED} AS waited
"""  # noqa: S608 - nothing of it comes from outside

# With all columns in their order, SQLAlchemy reads their names once, not at each look.
_TAKEN = *COLUMNS, column("waited")
_SEEN = *map(column, ("wait", "oldest", "one_by_one", "size")), *_TAKEN
SEE = text(_SEE_SQLITE)
TAKE = text(_TAKE_SQLITE).columns(*_TAKEN)


@cache
def _at_once(considered: int) -> TextualSelect:
    statement = _POSTGRESQL.replace("LIMIT considered", f"LIMIT {considered}")
    return text(statement).columns(*_SEEN)


def look(connection: Connection, wanted: Wanted, slots: int, since: str = EVER) -> Look:
    """Claim up to `slots` jobs: count an attempt of each, and begin its lease.

    On PostgreSQL it may overlook jobs that fell due before `since`, an earlier look's `oldest`.
    """
    claimed = {"slots": slots, "lease": get_settings().lease, "since": since}
    claimed["worker"] = this_worker()
    return (_in_two_steps if IS_SQLITE else _in_one)(connection, wanted, claimed)


class Lookout:
    """Spends at most a tenth of its time on looks at all due jobs, but has one in ten seconds.

    The other looks overlook a job that was committed long after it was submitted.
    """

    def __init__(self) -> None:
        self._since, self._next_whole = EVER, 0.0

    def look(self, connection: Connection, wanted: Wanted, slots: int) -> Look:
        began = time.monotonic()
        whole = self._since == EVER or began >= self._next_whole
        found = look(connection, wanted, slots, EVER if whole else self._since)
        self._since = found.oldest
        if whole:
            self._next_whole = began + min(10, 10 * (time.monotonic() - began))
            return found
        wait = max(0, self._next_whole - time.monotonic())
        return replace(found, wait=wait if found.wait is None else min(wait, found.wait))


def _in_one(connection: Connection, wanted: Wanted, claimed: dict[str, Any]) -> Look:
    considered = AHEAD + 10 * math.ceil(claimed["slots"] / 10)  # by tens: each has a plan
    rows = connection.execute(_at_once(considered), vars(wanted) | claimed).all()
    taken, first = [as_taken(row) for row in rows if row.id], rows[0]
    note_size(first.size)
    return Look(taken, first.wait, first.one_by_one, first.oldest)


def _in_two_steps(connection: Connection, wanted: Wanted, claimed: dict[str, Any]) -> Look:
    names = vars(wanted) | {"all": wanted.tasks + wanted.bounded}
    lists = {name: json.dumps(each) for name, each in names.items()}
    seen = connection.execute(SEE, lists).one()
    rows = connection.execute(TAKE, lists | claimed).all() if seen.due else []
    return Look([as_taken(row) for row in rows if row.id], seen.wait, bool(seen.one_by_one))


def as_taken(row: Row[Any]) -> Taken:
    told = origin_of(row), row.queue, row.waited
    return Taken(row.id, row.task, row.args or {}, row.attempts, row.max_attempts, *told)
