"""Somebody locks one row of `jobs` and keeps it locked. Only its own job is affected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.config import get_settings
from app.core.control import control
from app.jobs import Status, claims
from app.jobs.contract import Task
from app.jobs.host import Host
from tests.engine import probes
from tests.engine.core.waits import BLOCKED, outside
from tests.engine.jobs.rows import database_now, end, row_of, status_is, statuses, submit
from tests.service import eventually

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("no_other_jobs")]

LEASE = timedelta(seconds=get_settings().lease)
LOCK = text("SELECT FROM jobs WHERE id = :id FOR UPDATE")


@asynccontextmanager
async def locked(job_id: UUID) -> AsyncIterator[AsyncConnection]:
    async with outside() as connection:
        await connection.execute(text("BEGIN"))
        await connection.execute(LOCK, {"id": job_id})
        yield connection
        await connection.execute(text("ROLLBACK"))


async def test_only_the_locked_jobs_lease_is_not_extended(host: Host) -> None:
    """It is extended when the lock ends, before another host finds that its lease has ended."""
    ids = [await submit(probes.work, 60), await submit(probes.work, 60)]
    host.ring()
    lease_end = max([(await status_is(each, Status.RUNNING)).wake_at for each in ids])

    async def is_past() -> bool:
        return bool(await database_now() > lease_end + LEASE / 2)

    async with locked(ids[0]) as watching:
        await eventually(is_past)

        async def waits() -> bool:
            return bool(await watching.scalar(BLOCKED))

        await eventually(waits)
    for row in [await row_of(each) for each in ids]:
        assert (row.status, row.attempts, row.crashes) == (Status.RUNNING, 1, 0)
    await end(host, *ids)


@pytest.mark.parametrize("what", [probes.echo, probes.alone])
async def test_a_claim_does_not_wait_for_a_locked_row(what: Task[..., Any, Any]) -> None:
    job_id, bound = await submit(what, "a" if what is probes.echo else 0), what.max_running
    async with locked(job_id):
        claiming = control(
            lambda connection: claims.claim(connection, job_id, what.name, bound),
            transaction=bound is not None,
        )
        assert await claiming is None
    assert await statuses(job_id) == [Status.PENDING]
