"""Tasks whose effects can be counted: each writes an order, named after its job's caller."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.jobs import NonRetryable, task
from app.models import Order


@task(name="delivered.work")
async def work(db: AsyncSession, item: str, seconds: float) -> None:
    Path(f"{item} runs").touch()
    await asyncio.sleep(seconds)
    db.add(Order(item=item, quantity=1))


@task(name="delivered.work_sync")
def work_sync(db: Session, item: str, seconds: float) -> None:
    Path(f"{item} runs").touch()
    time.sleep(seconds)
    db.add(Order(item=item, quantity=1))


@task(name="delivered.write_first", timeout=timedelta(seconds=60))
async def write_first(db: AsyncSession, item: str, seconds: float) -> None:
    await db.execute(insert(Order).values(item=item, quantity=1))
    Path(f"{item} has written").touch()
    await asyncio.sleep(seconds)


@task(name="delivered.kill")
async def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task(name="delivered.alone", max_running=1)
async def alone(db: AsyncSession, item: str) -> None:
    """Fails for good where another one runs."""
    try:
        held = os.open("alone", os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        raise NonRetryable("two at once") from None
    await asyncio.sleep(0.1)
    db.add(Order(item=item, quantity=1))
    os.close(held)
    Path("alone").unlink()
