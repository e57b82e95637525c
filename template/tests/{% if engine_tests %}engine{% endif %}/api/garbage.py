"""Literals of garbage, for the columns of any table.

A random sample of the cases is tested, by a seed. With EXAMPLES=9999 all are.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import IS_SQLITE

EXAMPLES = int(os.environ.get("EXAMPLES", "60"))
DEEP = ["[" * depth + "]" * depth for depth in (200, 260, 3000)]
JSONS = ["[]", "null", '"x"', '"\\ud800"', "1e999", "9" * 5000, *DEEP]
JSONS += ['{"job_id": IT, "traceparent": IT}'.replace("IT", each) for each in ['["x"]', *JSONS]]
DATES = ["infinity", "-infinity", "0044-03-15 BC", "9999-12-31 23:59:59.999999", "0001-01-01"]
QUOTED = [f"'{each}'" for each in ["", "x", "paused", "\x01", *DATES, *JSONS]]
LITERALS = ["NULL", "-1", "0", "2147483647", *QUOTED]
if IS_SQLITE:  # it keeps any value in any column
    LITERALS += ["1e999", "-1e999", "9223372036854775807", "x'ff00'", "CAST(x'61ff' AS TEXT)"]
    LITERALS += ["'{'", "'NaN'", "char(0)"]


async def put(session: AsyncSession, table: Any, row_id: Any, column: str, literal: str) -> bool:
    """Write the literal into a column. Returns whether the database accepts it."""
    changed = text(f"UPDATE {table.name} SET {column} = {literal} WHERE id = :id")
    key = row_id.hex if IS_SQLITE and isinstance(row_id, UUID) else row_id
    try:
        async with session.begin_nested():
            await session.execute(changed, {"id": key})
    except DBAPIError:
        return False
    return True


def cases(table: Any, *fixed: str, more: Iterable[tuple[str, str]] = ()) -> list[tuple[str, str]]:
    """Pairs of a column, except the fixed ones, and a literal."""
    names = [column.name for column in table.columns if column.name not in fixed]
    found = [*((name, each) for name in names for each in LITERALS), *more]
    return random.Random(1).sample(found, min(EXAMPLES, len(found)))
