# mypy: disable-error-code="import-not-found,untyped-decorator"
"""Tasks that misbehave. The service under test finds them in `app/tasks`."""

from __future__ import annotations

import asyncio
import os
import time

from app.jobs import NonRetryable, current_job, task

STANDS_STILL = 25  # seconds


@task(name="faults.echo")
async def echo(text: str) -> str:
    return text


@task(name="faults.dies")
async def dies() -> None:
    raise NonRetryable("as the test wants")


@task(name="faults.holds_the_loop", queue="maintenance")
async def holds_the_loop() -> None:
    """Blocks its loop in the first try only. After the lease has ended it is tried again."""
    if current_job().attempt == 1:
        time.sleep(STANDS_STILL)


@task(name="faults.works")
async def works() -> int:
    """In its first try it runs longer than its host lives."""
    if current_job().attempt == 1:
        await asyncio.sleep(60)
    return os.getpid()
