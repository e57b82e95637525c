"""Tasks that take longer than the time to the next tick."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs import task


@task(name="scheduled.queued", max_running=1)
async def queued(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task(name="scheduled.skipped", max_running=1)
async def skipped(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task(name="scheduled.hold")
def hold(db: Session) -> None:
    """It keeps a slot and a connection until the test lets it end."""
    db.execute(select(1))
    while not Path("enough").exists():
        time.sleep(0.1)


@task(name="scheduled.block", tries=1)
async def block(seconds: float) -> None:
    """It blocks its process. So it loses its lease, and runs again."""
    block_once(seconds)


def block_once(seconds: float) -> None:
    if not Path("blocked").exists():
        Path("blocked").touch()
        time.sleep(seconds)
