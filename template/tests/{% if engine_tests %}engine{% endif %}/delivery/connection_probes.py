"""Tasks that have one try, and hold a connection while they run."""

from __future__ import annotations

import asyncio
import time

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.jobs import task
from app.models import Order


@task(name="delivered.hold", tries=1)
async def hold(db: AsyncSession, item: str) -> None:
    await db.execute(insert(Order).values(item=item, quantity=1))
    await asyncio.sleep(0.5)


@task(name="delivered.hold_sync", tries=1)
def hold_sync(db: Session, item: str) -> None:
    db.execute(insert(Order).values(item=item, quantity=1))
    time.sleep(0.5)


@task(name="delivered.hold_none", tries=1)
async def hold_none() -> None:
    """It needs a connection only for its outcome."""
    await asyncio.sleep(0.1)
