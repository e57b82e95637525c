"""Finds the jobs that an operator's filter names, in pages that look at few rows.

The newest come first: each status is read backwards from an index of its own. What the filter names
beside the status and the time is compared row by row, for a limited number of rows a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Subquery,
    TextClause,
    and_,
    false,
    func,
    literal,
    select,
    text,
    true,
    tuple_,
    union_all,
)

from app.jobs.endings import Origin, origin_of
from app.jobs.table import HAS_ENDED, LISTED, MAX_COUNT, Status, db_time, jobs
from app.jobs.tries import Try, tries_of

Condition = ColumnElement[bool] | TextClause
Place = tuple[datetime, UUID]  # a job's `created_at`, and its id

EXAMINED = 10_000  # rows that one page looks at
TICKS = "schedule:%:____-__-__T__:__:__Z"  # the dispatcher's keys
OTHER_HOLDS = text(
    "others.key IS NOT NULL AND (others.keep_key OR others.status IN ('pending', 'running'))"
)


@dataclass(frozen=True)
class StoredJob:
    """A job's row. A value that somebody broke by hand is here as it was read."""

    id: UUID
    task: str
    queue: str
    args: JsonValue
    key: str | None
    keep_key: bool
    status: Status
    attempts: int
    max_attempts: int
    signature: str | None
    refused_at: datetime | None
    crashes: int
    pushes: int
    result: JsonValue
    error: str | None
    created_at: datetime
    run_at: datetime
    wake_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None  # which took it last: `host:pid`
    tries: list[Try]  # the last ten, oldest first
    origin: Origin  # what submitted it: request_id, job_id, schedule_id


@dataclass(frozen=True)
class JobPage:
    """Some jobs, and where the next page begins. A page may be short although another follows."""

    jobs: list[StoredJob]
    next: Place | None


@dataclass(frozen=True)
class JobFilter:
    """All that is given must match. A job was created not before `since`, and before `until`.

    Both are aware. `error` is a part of the error's text; upper and lower case are the same.
    """

    status: Status | None = None
    task: str | None = None
    queue: str | None = None
    key: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    error: str | None = None

    def statuses(self, *allowed: Status) -> list[Status]:
        """The allowed statuses that the filter matches."""
        return [each for each in allowed if self.status in (None, each)]

    def to_replay(self) -> list[JobFilter]:
        """Filters that match the same jobs as far as they can be replayed."""
        return self._each(Status.DEAD)

    def to_cancel(self) -> list[JobFilter]:
        """Filters that match the same jobs as far as they can be cancelled, one a status."""
        return self._each(Status.PENDING, Status.RUNNING)

    def _each(self, *allowed: Status) -> list[JobFilter]:
        return [replace(self, status=one) for one in self.statuses(*allowed)]


def matching(wanted: JobFilter, columns: Any = jobs.c) -> list[Condition]:
    """The conditions that are compared row by row."""
    names = _compared(wanted) - {"error"}
    found: list[Condition] = [columns[name] == getattr(wanted, name) for name in names]
    if wanted.error is not None:
        found.append(columns.error.icontains(wanted.error, autoescape=True))
    return found


def _compared(wanted: JobFilter) -> set[str]:
    names = "task", "queue", "key", "error"
    return {name for name in names if getattr(wanted, name) is not None}


def page(wanted: JobFilter, most: int, after: Place | None) -> Select[Any]:
    """The newest `matching` jobs, at most so many, among the rows that a page examines.

    The row that it examines `last`, if more may follow, comes as well, although it may not match.
    So one statement says where the next page begins, and nobody changes rows in between.
    """
    if wanted.status and not _compared(wanted):
        lane = select(jobs, true().label("matching"), false().label("last"))
        lane = lane.where(*_lane(wanted, wanted.status, after))
        return lane.order_by(*_newest_first(jobs.c)).limit(most)
    seen = _newest(wanted, EXAMINED if _compared(wanted) else most, after)
    found = select(seen).where(seen.c.matching | seen.c.last)
    each = found.order_by(*_newest_first(seen.c)).limit(most).subquery()
    shown = select(jobs, each.c.matching, each.c.last).join(each, each.c.id == jobs.c.id)
    return shown.order_by(*_newest_first(each.c))


def place_of(found: Sequence[Any]) -> Place | None:
    """The place of the last row. A row with a broken id or time has none, and comes again."""
    for row in reversed(found):
        if row.id and row.created_at and 1970 <= row.created_at.year < 2286:
            return row.created_at, row.id
    return None


def number(wanted: JobFilter, most: int) -> Select[Any]:
    """Counts matching jobs, and stops at `most`."""
    found = select(jobs.c.id).where(*matching(wanted)).limit(most)
    lanes = [found.where(*_lane(wanted, status)) for status in wanted.statuses(*Status)]
    each = union_all(*(select(lane.subquery()) for lane in lanes)).limit(most)
    return select(func.count()).select_from(each.subquery())


def oldest(wanted: JobFilter, status: Status, most: int, after: Place | None = None) -> Select[Any]:
    """Selects and locks the oldest matching jobs of this status. It skips those that are locked."""
    found = select(jobs.c.id, jobs.c.task, jobs.c.queue, jobs.c.key, jobs.c.created_at)
    found = found.where(*_lane(wanted, status), *matching(wanted))
    if after is not None:
        found = found.where(tuple_(jobs.c.created_at, jobs.c.id) > after)
    found = found.order_by(jobs.c.created_at, jobs.c.id).limit(most)
    return found.with_for_update(skip_locked=True)


def replayable(
    wanted: JobFilter, most: int, died_until: datetime, after: Place | None
) -> Select[Any]:
    """Selects and locks the oldest dead jobs, without those whose key another job holds."""
    others = jobs.alias("others")
    same = others.c.task == jobs.c.task, others.c.key == jobs.c.key, others.c.id != jobs.c.id
    taken = select(others.c.id).where(*same, OTHER_HOLDS).exists()
    may_run = jobs.c.attempts < MAX_COUNT, jobs.c.finished_at <= died_until
    return oldest(wanted, Status.DEAD, most, after).where(~taken, *may_run)


def prunable(status: Status, age: timedelta, most: int, after: Place | None) -> Select[Any]:
    """Selects and locks the oldest jobs that ended so long ago, without those that keep a key."""
    keeps = jobs.c.keep_key & jobs.c.key.is_not(None) & jobs.c.key.not_like(TICKS)
    since = db_time(-age.total_seconds())
    # By their creation, too: their index has it, and so those that ended lately aren't read.
    old = jobs.c.finished_at < since, jobs.c.created_at < since
    return oldest(JobFilter(), status, most, after).where(*old, ~keeps)


def _newest(wanted: JobFilter, most: int, after: Place | None) -> Subquery:
    """The newest rows of each allowed status, of these the newest, and whether each matches."""
    shown = [jobs.c[name] for name in ("id", "created_at", *sorted(_compared(wanted)))]
    each = select(*shown).order_by(*_newest_first(jobs.c)).limit(most)
    lanes = [each.where(*_lane(wanted, one, after)) for one in wanted.statuses(*Status)]
    found = union_all(*(select(lane.subquery()) for lane in lanes)).subquery()
    matches = and_(true(), *matching(wanted, found.c)).label("matching")
    order = _newest_first(found.c)
    is_last = (func.row_number().over(order_by=order) == EXAMINED).label("last")
    seen = select(found.c.id, found.c.created_at, matches, is_last)
    return seen.order_by(*order).limit(most).subquery()


def _lane(wanted: JobFilter, status: Status, after: Place | None = None) -> list[Condition]:
    """The planner uses a partial index only for a literal status, and with its condition."""
    found: list[Condition] = [jobs.c.status == literal(status, literal_execute=True)]
    if status != Status.RUNNING:
        found.append(text(LISTED if status == Status.PENDING else HAS_ENDED))
    if wanted.since is not None:
        found.append(jobs.c.created_at >= wanted.since)
    if wanted.until is not None:
        found.append(jobs.c.created_at < wanted.until)
    if after is not None:
        found.append(tuple_(jobs.c.created_at, jobs.c.id) < after)
    return found


def _newest_first(columns: Any) -> tuple[Any, Any]:
    return columns.created_at.desc(), columns.id.desc()


def stored(row: Row[Any]) -> StoredJob:
    values = dict(zip(jobs.c.keys(), row, strict=False))  # a page has two columns more
    with suppress(ValueError):
        values["status"] = Status(values["status"])
    values["tries"] = tries_of(row)
    values["origin"] = origin_of(row)
    return StoredJob(**values)
