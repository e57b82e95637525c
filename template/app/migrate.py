"""The one step before a new version starts: the schema, then the schedules that the code declares.

python -m app.migrate

Not each process does it: an old one that starts again meanwhile would bring its own back.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import OperationalError

from app import tasks
from app.config import get_settings
from app.core import database
from app.core.loading import load_module
from app.core.logging import configure_logging
from app.jobs import Schedule
from app.jobs.backends import reconcile

log = structlog.get_logger(__name__)


async def declare(schedules: Sequence[Schedule]) -> None:
    async with database.AsyncSessionLocal.begin() as session:
        await reconcile(session, schedules)
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
        log.info("schema.up_to_date", revisions=now)
    else:
        log.info("schema.migrated", before=before, now=now)


def revisions() -> list[str]:
    """Raises OperationalError when the database can't be reached."""
    engine = create_engine(database.sync_url(get_settings().database_url), poolclass=NullPool)
    with engine.connect() as connection:
        return sorted(MigrationContext.configure(connection).get_current_heads())


def main() -> None:
    configure_logging()
    load_module("app.models")
    tasks.load()
    schedules: list[Schedule] = load_module("app.tasks.schedules").SCHEDULES
    upgrade()
    asyncio.run(declare(schedules))
    log.info("schedules.declared", declared=len(schedules))


if __name__ == "__main__":
    main()
