"""The tests' own tasks. The service under test finds them as `app/tasks/probes.py`."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from datetime import timedelta
from pathlib import Path

import structlog
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import Jobs, NonRetryable, RetryLater, current_job, relay, task
from app.models import Order

log = structlog.get_logger(__name__)

SOON = timedelta(seconds=0.1)
# What fails as if the database was away.
LOSE_IT = {
    "sqlite": "ATTACH 'no/such/folder/file.db' AS lost",
    "postgresql": "SELECT pg_terminate_backend(pg_backend_pid())",
}


@task(name="probes.echo")
async def echo(text: str) -> str:
    log.info("echoing", text=text)
    return text


@task(name="probes.echo_sync")
def echo_sync(text: str, times: int = 1) -> str:
    return text * times


@task(name="probes.place_order")
async def place_order(db: AsyncSession, item: str) -> None:
    """There are as many of its orders as tries that succeeded."""
    db.add(Order(item=item, quantity=1))


@task(name="probes.order_then_fail", tries=2, backoff=SOON)
async def order_then_fail(db: AsyncSession, item: str) -> None:
    db.add(Order(item=item, quantity=1))
    await db.flush()
    raise RuntimeError("after the write")


@task(name="probes.flaky", tries=3, backoff=SOON)
async def flaky(fail_times: int) -> int:
    if current_job().attempt <= fail_times:
        raise ConnectionError(f"try {current_job().attempt}")
    return current_job().attempt


@task(name="probes.later", tries=3)
async def later() -> int:
    if current_job().attempt == 1:
        raise RetryLater("not yet", after=SOON)
    return current_job().attempt


@task(name="probes.disconnected", tries=1)
async def disconnected(db: AsyncSession) -> int:
    """Its first try loses the database."""
    if current_job().attempt == 1:
        await db.execute(sql(LOSE_IT[db.get_bind().dialect.name]))
    return current_job().attempt


@task(name="probes.hands_on")
async def hands_on(db: AsyncSession, text: str) -> str:
    """Returns the id of a job that is due much later."""
    job = await Jobs(db).submit(echo, text, delay=timedelta(hours=1))
    return str(job.id)


@task(name="probes.hopeless", tries=5)
async def hopeless() -> None:
    await asyncio.sleep(0.01)  # SQLite's clock has milliseconds
    raise NonRetryable("secret reason")


@task(name="probes.slow", tries=1, timeout=timedelta(seconds=0.3))
async def slow(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task(name="probes.slow_sync", tries=1, timeout=timedelta(seconds=0.3))
def slow_sync(seconds: float) -> None:
    time.sleep(seconds)


@task(name="probes.work", tries=3)
async def work(seconds: float) -> str:
    """Runs long enough to be killed or stopped before its end."""
    log.info("working", pid=os.getpid())
    await asyncio.sleep(seconds)
    return "worked"


def never_end() -> None:
    Path("a thread runs").touch()
    threading.Event().wait()


@task(name="probes.fill_threads", tries=3)
async def fill_threads() -> None:
    """Leaves no thread of asyncio's own executor free, and none of them ever ends."""
    await asyncio.gather(*(asyncio.to_thread(never_end) for _ in range(40)))


@task(name="probes.alone", max_running=1)
async def alone(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task(name="probes.relays")
async def relays() -> bool:
    """Whether a relay runs in the same process."""
    return relay.current_relay() is not None


@task(name="probes.not_json")
async def not_json() -> object:
    return object()
