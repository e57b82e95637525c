"""The benchmark's own tasks. The file is copied to `app/tasks/bench.py`."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta

from app.jobs import task
from app.models import Order
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session


@task(name="bench.noop")
async def noop() -> None:
    pass


@task(name="bench.stamp")
async def stamp(sent: float) -> float:
    """The seconds since the submit."""
    return time.time() - sent


@task(name="bench.where")
async def where(seconds: float) -> int:
    """The id of the process that ran it."""
    if seconds:
        await asyncio.sleep(seconds)
    return os.getpid()


@task(name="bench.hold", tries=1, timeout=timedelta(minutes=10))
async def hold(db: AsyncSession, seconds: float) -> None:
    """Keep a transaction open after a write: the database can't remove rows that are newer."""
    db.add(Order(item="tea", quantity=1))
    await db.flush()
    await asyncio.sleep(seconds)


@task(name="bench.connect")
async def connect(db: AsyncSession) -> None:
    await db.execute(text("SELECT 1"))
    await asyncio.sleep(0.05)


@task(name="bench.connect_in_thread")
def connect_in_thread(db: Session) -> None:
    db.execute(text("SELECT 1"))
    time.sleep(0.05)
