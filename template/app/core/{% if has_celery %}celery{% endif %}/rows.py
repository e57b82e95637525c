"""Statements about the messages of jobs: a row's `pushes` says that one was sent.

Its `wake_at` says from when the message counts as late.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Update,
    Uuid,
    bindparam,
    func,
    literal,
    or_,
    select,
    text,
    union_all,
    update,
)

from app.core.database import IS_SQLITE
from app.jobs.backends import COUNTED, HEAD_START, LAZILY, PAUSED, Message, db_time, jobs

BATCH = 100  # rows at once; more would hold SQLite's lock for too long
CONSIDERED = BATCH + 50  # other processes may note the first ones

Room = Mapping[tuple[str, str], int]  # of a queue and a task: how many messages may be sent

# Written as text: with a bound value the planner couldn't use the partial index.
SENT = text("status = 'pending' AND pushes > 0")
UNSENT = text(f"status = 'pending' AND pushes = 0 AND {COUNTED}")


@dataclass(frozen=True)
class State:
    """How many rows of a queue have a message under way, counted up to a limit.

    `late` is the database's time if one of these messages is late, else None.
    """

    queue: str
    sent: int
    late: datetime | None
    paused: bool


def states(connection: Connection, queues: Iterable[str], limit: int) -> list[State]:
    """The state of each queue, by its rows."""
    each = [_of(queue, limit) for queue in queues]
    return [State(*row) for row in connection.execute(union_all(*each))] if each else []


def _of(queue: str, limit: int) -> Any:
    sent = select(jobs.c.id).where(jobs.c.queue == queue, SENT).limit(limit).subquery()
    count = select(func.count()).select_from(sent).scalar_subquery()
    late = select(db_time(0)).where(
        select(jobs.c.id).where(jobs.c.queue == queue, SENT, jobs.c.wake_at <= db_time(0)).exists()
    )
    paused = literal(queue).in_(text(PAUSED))
    return select(literal(queue), count, late.scalar_subquery(), paused)


def sent_of(connection: Connection, queues: Iterable[str], tasks: Iterable[str]) -> dict[str, int]:
    """How many messages of each of these tasks are under way."""
    where = SENT, jobs.c.queue.in_(list(queues)), jobs.c.task.in_(list(tasks))
    counted = select(jobs.c.task, func.count()).where(*where).group_by(jobs.c.task)
    return {row[0]: row[1] for row in connection.execute(counted)}


_NOTE = text(
    f"""
    WITH pair AS (
      SELECT * FROM unnest(
        CAST(:queues AS text[]), CAST(:tasks AS text[]), CAST(:rooms AS int[])
      ) AS pair (queue, task, room)
    ), due AS (
      SELECT found.* FROM pair CROSS JOIN LATERAL (
        SELECT id, run_at FROM jobs
        WHERE status = 'pending' AND crashes = 0 AND pushes = 0 AND {COUNTED}
          AND queue = pair.queue AND task = pair.task AND run_at <= statement_timestamp()
        ORDER BY queue, task, run_at LIMIT least(pair.room, {CONSIDERED})
      ) AS found
      UNION ALL
      SELECT id, run_at FROM jobs JOIN pair USING (queue, task)
      WHERE status = 'pending' AND crashes > 0 AND pushes = 0 AND {COUNTED}
        AND run_at <= statement_timestamp()
    )
    UPDATE jobs SET pushes = 1,
      wake_at = statement_timestamp() + make_interval(secs => {HEAD_START})
    WHERE {LAZILY} AND id = ANY(ARRAY(
      SELECT id FROM jobs
      WHERE id = ANY(ARRAY(SELECT id FROM due ORDER BY run_at LIMIT {CONSIDERED}))
        AND status = 'pending' AND pushes = 0
      ORDER BY run_at LIMIT {BATCH} FOR NO KEY UPDATE SKIP LOCKED
    ))
    RETURNING id, task, queue
    """  # noqa: S608 - nothing of it comes from outside
).columns(id=Uuid())


def note(connection: Connection, room: Room) -> list[Message]:
    """Note messages for due rows, oldest first, as many as there is room for. Returns these."""
    if not room:
        return []
    rows = (_note_each if IS_SQLITE else _note_all)(connection, room)
    return [Message(row.id, row.task, row.queue, noted=True) for row in rows]


def _note_all(connection: Connection, room: Room) -> Sequence[Any]:
    pairs = list(room)
    lists = {"queues": [q for q, _ in pairs], "tasks": [t for _, t in pairs]}
    return connection.execute(_NOTE, lists | {"rooms": list(room.values())}).all()


_LANES = text("crashes = 0"), text("crashes > 0")
_PAIR = func.json_each(bindparam("pairs")).table_valued("value")
_QUEUE, _TASK = (func.json_extract(_PAIR.c.value, f"$[{index}]") for index in (0, 1))


def _due_of(queue: Any, task: Any, lane: Any) -> Any:
    where = UNSENT, lane, jobs.c.queue == queue, jobs.c.task == task, jobs.c.run_at <= db_time(0)
    return select(jobs.c.run_at, jobs.c.id).where(*where)


_WITH_DUE = select(_QUEUE, _TASK).where(
    or_(*(_due_of(_QUEUE, _TASK, lane).exists() for lane in _LANES))
)


def _note_each(connection: Connection, room: Room) -> Sequence[Any]:
    """Ask for the pairs with due rows first: an idle worker then runs one statement, not many."""
    due: list[Any] = []
    for queue, task in connection.execute(_WITH_DUE, {"pairs": json.dumps(list(room))}):
        limit = min(room[queue, task], BATCH)
        for lane in _LANES:
            oldest = _due_of(queue, task, lane).order_by(jobs.c.run_at)
            due += connection.execute(oldest.limit(limit))
    ids = [row.id for row in sorted(due, key=lambda row: row.run_at)[:BATCH]]
    noted = (
        update(jobs).where(UNSENT, jobs.c.id.in_(ids)).values(pushes=1, wake_at=db_time(HEAD_START))
    )
    return (
        connection.execute(noted.returning(jobs.c.id, jobs.c.task, jobs.c.queue)).all()
        if ids
        else []
    )


def forget(connection: Connection, ids: Sequence[UUID]) -> None:
    """Note that these rows have no message: it couldn't be sent, or came too early."""
    connection.execute(_forgotten(jobs.c.id.in_(ids)))


def forget_late(connection: Connection, queue: str, until: datetime) -> int:
    """Note that rows whose message was late at this time have none. Returns how many."""
    late = jobs.c.queue == queue, jobs.c.wake_at <= until
    return connection.execute(_forgotten(*late)).rowcount


def _forgotten(*which: ColumnElement[bool]) -> Update:
    """A row that somebody has locked is left for the next time: it must hold up no other one."""
    free = select(jobs.c.id).where(SENT, *which).with_for_update(skip_locked=True, key_share=True)
    return update(jobs).where(jobs.c.id.in_(free)).values(pushes=0)


def current_task(connection: Connection, job_id: UUID) -> str | None:
    """The task of a job that is due, as its row names it."""
    due = jobs.c.id == job_id, text("status = 'pending'"), jobs.c.run_at <= db_time(0)
    task: str | None = connection.scalar(select(jobs.c.task).where(*due))
    return task
