"""Records the statements that the engine sends on its own connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event

from app.core import control
from app.core.database import IS_SQLITE, jobs_engine

SESSIONS = control._on_loop.sync_engine
CONTROL = control._waited_for if IS_SQLITE else SESSIONS


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Record each statement and its values as the driver gets them. `executemany` is one entry."""
    made: list[tuple[str, Any]] = []

    def note(connection: object, cursor: object, statement: str, values: Any, *_: object) -> None:
        made.append((statement, values))

    event.listen(CONTROL, "before_cursor_execute", note)
    try:
        yield made
    finally:
        event.remove(CONTROL, "before_cursor_execute", note)


async def plans_of(
    step: Callable[[Connection], object], *, without: str | None = None, bitmaps: bool = True
) -> list[str]:
    """The database's plans for the statements of this step."""
    with statements() as made:
        await control.control(step)
    plans = []
    async with jobs_engine.connect() as connection:
        if not IS_SQLITE:
            await connection.exec_driver_sql("SET enable_seqscan = off")  # the table is small
            await connection.exec_driver_sql(f"SET enable_bitmapscan = {bitmaps}")
        if without:  # dropped until the rollback
            if IS_SQLITE:
                await connection.exec_driver_sql("BEGIN")
            await connection.exec_driver_sql(f"DROP INDEX {without}")
        for statement, values in made:
            explain = "EXPLAIN QUERY PLAN " if IS_SQLITE else "EXPLAIN "
            plan = (await connection.exec_driver_sql(explain + statement, values)).all()
            plans.append("\n".join(str(row[-1 if IS_SQLITE else 0]) for row in plan))
        await connection.rollback()
        await connection.invalidate()
    return plans
