"""Tasks whose effects can be counted: most write an order with the item that they are given."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.jobs import NonRetryable, current_job, task
from app.models import Order


def mark(name: str) -> None:
    """Make a file that tells the test how far a task got."""
    Path(name).touch()


def may_end(item: str) -> bool:
    return Path(f"{item} may end").exists()


async def until_it_may_end(item: str) -> None:
    while True:
        await asyncio.sleep(0.05)
        if may_end(item):
            return


@task(name="delivered.work")
async def work(db: AsyncSession, item: str, seconds: float) -> int:
    """Returns the number of the try."""
    mark(f"{item} runs")
    await asyncio.sleep(seconds)
    db.add(Order(item=item, quantity=1))
    return current_job().attempt


@task(name="delivered.work_sync")
def work_sync(db: Session, item: str, seconds: float) -> int:
    mark(f"{item} runs")
    time.sleep(seconds)
    db.add(Order(item=item, quantity=1))
    return current_job().attempt


@task(name="delivered.deaf", tries=1, timeout=timedelta(seconds=1))
async def deaf() -> None:
    """It takes no notice of the end of its time limit."""
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


@task(name="delivered.wait")
async def wait(db: AsyncSession, item: str) -> int:
    """Runs until the test lets it end."""
    mark(f"{item} runs")
    await until_it_may_end(item)
    db.add(Order(item=item, quantity=1))
    return current_job().attempt


@task(name="delivered.wait_sync")
def wait_sync(db: Session, item: str) -> int:
    """Runs until the test lets it end."""
    mark(f"{item} runs")
    while not may_end(item):
        time.sleep(0.05)
    db.add(Order(item=item, quantity=1))
    return current_job().attempt


@task(name="delivered.stubborn")
async def stubborn(item: str) -> None:
    """Runs until the test lets it end. It swallows each cancellation."""
    mark(f"{item} runs")
    while not may_end(item):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


@task(name="delivered.write_first", timeout=timedelta(seconds=60))
async def write_first(db: AsyncSession, item: str, seconds: float) -> None:
    await db.execute(insert(Order).values(item=item, quantity=1))
    mark(f"{item} has written")
    await asyncio.sleep(seconds)


@task(name="delivered.write_then_wait", timeout=timedelta(seconds=60))
async def write_then_wait(db: AsyncSession, item: str) -> None:
    """Writes, and commits when the test lets it end."""
    await db.execute(insert(Order).values(item=item, quantity=1))
    mark(f"{item} has written")
    await until_it_may_end(item)


@task(name="delivered.kill")
async def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task(name="delivered.hold_the_gil", tries=1)
def hold_the_gil() -> None:
    """No other thread of its process runs while the expression is matched."""
    mark("holds the GIL")
    re.match("(a+)+$", "a" * 99 + "b")


@task(name="delivered.alone", max_running=1)
def alone(db: Session, item: str) -> None:
    """It is dead at once if another one runs at the same time."""
    try:
        Path("alone").touch(exist_ok=False)
    except FileExistsError:
        raise NonRetryable("two at once") from None
    time.sleep(0.1)
    db.add(Order(item=item, quantity=1))
    Path("alone").unlink()


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("has no text")


@task(name="delivered.speechless", tries=1)
async def speechless() -> None:
    raise SpeechlessError


@task(name="delivered.unwritable", tries=1)
async def unwritable() -> None:
    raise ValueError("\0 and \ud800")
