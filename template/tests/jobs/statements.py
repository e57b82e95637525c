"""What the engine says to its database on its own connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from app.core import control
from app.core.database import IS_SQLITE

CONTROL = control._waited_for if IS_SQLITE else control._on_loop.sync_engine


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Each with its values, as the driver gets them; many values for one are one statement."""
    made: list[tuple[str, Any]] = []

    def note(connection: object, cursor: object, statement: str, values: Any, *_: object) -> None:
        made.append((statement, values))

    event.listen(CONTROL, "before_cursor_execute", note)
    try:
        yield made
    finally:
        event.remove(CONTROL, "before_cursor_execute", note)
