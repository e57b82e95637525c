"""The one step before a new version starts: the schema, then the schedules that the code declares.

python -m app.migrate

Not each process does it: an old one that starts again meanwhile would bring its own back.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import NullPool, Row, create_engine, delete, insert, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app import tasks
from app.config import get_settings
from app.core import database
from app.core.logging import configure_logging
from app.jobs import Schedule
from app.jobs.backends import MAX_COUNT, clock, definition_of, next_tick, schedules
from app.tasks.schedules import SCHEDULES

log = structlog.get_logger(__name__)


async def reconcile(session: AsyncSession, declared: Sequence[Schedule]) -> None:
    """Bring the table in line with the code: add, change (a pause stays), remove; REST's stay.

    An operator's change stays until the code says something else. Raises ValueError when two
    schedules have one id.
    """
    ids = Counter(schedule.id for schedule in declared)
    if twice := [schedule_id for schedule_id, count in ids.items() if count > 1]:
        raise ValueError(f"two schedules are named {twice[0]!r}")
    known = select(schedules).where(schedules.c.id.in_(ids)).with_for_update()
    rows = {row.id: row for row in (await session.execute(known)).all()}
    now = (await session.execute(select(clock(0)))).scalar_one()
    for schedule in declared:
        await _declare(session, schedule, rows.get(schedule.id), now)
    gone = schedules.c.declared.is_not(None), schedules.c.id.not_in(ids)
    await session.execute(delete(schedules).where(*gone))


async def _declare(
    session: AsyncSession, schedule: Schedule, row: Row[Any] | None, now: datetime
) -> None:
    definition = definition_of(schedule)
    values = {"declared": definition, "definition": definition, "task": schedule.task.name}
    first = {"next_tick": next_tick(schedule.trigger, now)}
    if row is None:
        await session.execute(insert(schedules).values(id=schedule.id, **values, **first))
    elif row.declared != definition:
        # With the same trigger, what fell due meanwhile stays due.
        before = row.definition.get("trigger") if isinstance(row.definition, dict) else None
        moved = first if before != definition["trigger"] else {}
        again = {"revision": min(row.revision, MAX_COUNT - 1) + 1, **values, **moved}
        await session.execute(update(schedules).where(schedules.c.id == schedule.id).values(again))


async def declare_schedules() -> None:
    async with database.AsyncSessionLocal.begin() as session:
        await reconcile(session, SCHEDULES)
    await database.dispose()


def upgrade() -> None:
    """Run the migrations that it lacks. Raises SystemExit when it can't be reached."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        before = revisions()
    except OperationalError as error:
        said = " ".join(str(error.orig).split())
        sys.exit(f"DATABASE_URL: {said}: start it, or correct the address")
    command.upgrade(Config(Path(__file__).parents[1] / "alembic.ini"), "heads")
    if before == (now := revisions()):
        log.info("schema is up to date", revisions=now)
    else:
        log.info("schema migrated", before=before, now=now)


def revisions() -> list[str]:
    """Raises OperationalError when the database can't be reached."""
    engine = create_engine(database.sync_url(get_settings().database_url), poolclass=NullPool)
    with engine.connect() as connection:
        return sorted(MigrationContext.configure(connection).get_current_heads())


def main() -> None:
    configure_logging()
    tasks.load()
    upgrade()
    asyncio.run(declare_schedules())
    log.info("schedules are as app/tasks/schedules.py declares them", declared=len(SCHEDULES))


if __name__ == "__main__":
    main()
