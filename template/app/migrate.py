"""The one step before a new version starts: the schema, then the schedules that the code declares.

python -m app.migrate
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config

from app import tasks
from app.core import database
from app.jobs.dispatcher import reconcile
from app.tasks.schedules import SCHEDULES


async def declare_schedules() -> None:
    async with database.AsyncSessionLocal() as session:
        await reconcile(session, SCHEDULES)
        await session.commit()
    await database.dispose()


def main() -> None:
    command.upgrade(Config(Path(__file__).parents[1] / "alembic.ini"), "heads")
    tasks.load()
    asyncio.run(declare_schedules())


if __name__ == "__main__":
    main()
