"""Statements that insert one job, or thousands, in one round trip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    Executable,
    Float,
    String,
    Uuid,
    bindparam,
    cast,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import IS_SQLITE, UtcDateTime
from app.jobs.table import HEAD_START, db_time, jobs, upsert

MANY = 5_000  # jobs in one statement

_DELAY = bindparam("delay", type_=Float)
_SHARED = ("task", "queue", "max_attempts", "signature", "origin", "pushes")


@cache  # SQLAlchemy compiles a statement once, as long as it stays the same object
def insert_one(by_clock: bool) -> Executable:
    """Returns no row if the key is taken. `by_clock`: the time is given as a delay."""
    times = {"created_at": db_time(0)}
    if by_clock:
        times |= {"run_at": db_time(_DELAY), "wake_at": db_time(_DELAY + HEAD_START)}
    inserted: Executable = upsert(jobs).values(times).on_conflict_do_nothing().returning(jobs.c.id)
    return inserted


async def insert_many(
    connection: AsyncConnection, rows: Sequence[tuple[UUID, str]], shared: dict[str, Any]
) -> None:
    """`rows` are the jobs' ids and arguments (JSON); `shared` is all that they have in common."""
    statement = _insert_many("delay" in shared)
    for first in range(0, len(rows), MANY):
        parameters = _as_parameters(rows[first : first + MANY])
        await connection.execute(statement, shared | parameters)


def _as_parameters(rows: Sequence[tuple[UUID, str]]) -> dict[str, Any]:
    if IS_SQLITE:
        return {"rows": json.dumps([(job_id.hex, arguments) for job_id, arguments in rows])}
    return {"ids": [job_id for job_id, _ in rows], "arguments": [each for _, each in rows]}


@cache
def _insert_many(by_clock: bool) -> Executable:
    run_at, late = (
        (db_time(_DELAY), db_time(_DELAY + HEAD_START))
        if by_clock
        else (bindparam("run_at", type_=UtcDateTime), bindparam("wake_at", type_=UtcDateTime))
    )
    shared = [bindparam(name, type_=jobs.c[name].type) for name in _SHARED]
    names = ["id", "args", *_SHARED, "created_at", "run_at", "wake_at"]
    rows = select(*_rows(), *shared, db_time(0), run_at, late)
    return insert(jobs).from_select(names, rows, include_defaults=False)


def _rows() -> tuple[Any, Any]:
    """The parameters as a table of ids and arguments."""
    if IS_SQLITE:
        each = func.json_each(bindparam("rows", type_=String)).table_valued("value")
        return func.json_extract(each.c.value, "$[0]"), func.json_extract(each.c.value, "$[1]")
    ids = bindparam("ids", type_=postgresql.ARRAY(Uuid))
    arguments = bindparam("arguments", type_=postgresql.ARRAY(String))
    its = func.unnest(ids, arguments).table_valued("id", "args", name="its").render_derived()
    return its.c.id, cast(its.c.args, JSON)
