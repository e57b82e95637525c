"""What a database keeps and Python can't read: garbage, or an infinite date.

Such a value must not fail the statement that reads it together with others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format
from sqlalchemy import Dialect, TypeDecorator

T = TypeVar("T")


@dataclass(frozen=True)
class Unreadable:
    """Stands where such a value was read."""

    reason: str

    def __bool__(self) -> bool:
        return False


class Tolerant(TypeDecorator[T]):
    """A column's type whose garbage is read as `Unreadable`."""

    __abstract__ = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        process = super().result_processor(dialect, coltype)
        if process is None:
            return None

        def read(value: Any) -> Any:
            try:
                return process(value)
            except Exception as error:
                return value if isinstance(value, Unreadable) else _unreadable(error)

        return read


def tolerate(adapters: AdaptersMap) -> None:
    """The same for what PostgreSQL's driver reads by itself."""
    for name in ("timestamptz", "json"):
        oid = adapters.types[name].oid
        if strict := adapters.get_loader(oid, Format.TEXT):
            adapters.register_loader(oid, _tolerant(strict))


def _tolerant(strict: Any) -> type[Loader]:
    class TolerantLoader(Loader):
        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self._strict = strict(oid, context)

        def load(self, data: Buffer) -> Any:
            try:
                return self._strict.load(data)
            except Exception as error:
                return _unreadable(error)

    return TolerantLoader


def _unreadable(error: Exception) -> Unreadable:
    return Unreadable(str(error)[:200] or type(error).__name__)
