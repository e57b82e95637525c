# mypy: disable-error-code="import-not-found,untyped-decorator"
"""Tasks that record which process runs them. Their effects can be counted."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

from app.jobs import task
from app.models import Order
from sqlalchemy.ext.asyncio import AsyncSession


def record(item: str) -> None:
    """Add a line for this try, with the process group: a worker and its pool share one."""
    line = {"item": item, "host": os.getpgid(0), "at": time.time()}
    with Path(os.environ["RUNS"]).open("a") as runs:
        runs.write(json.dumps(line) + "\n")


@task(name="deploys.work")
async def work(db: AsyncSession, item: str) -> None:
    record(item)
    await asyncio.sleep(0.02)
    db.add(Order(item=item, quantity=1))


@task(name="deploys.note")
async def note(item: str) -> None:
    """Its only effect is the line, which is written at least once."""
    record(item)
    await asyncio.sleep(0.02)


@task(name="deploys.hold")
async def hold(db: AsyncSession, item: str) -> None:
    """Runs until the test lets it end."""
    record(item)
    while not Path(os.environ["MAY_END"]).exists():
        await asyncio.sleep(0.05)
    db.add(Order(item=item, quantity=1))
