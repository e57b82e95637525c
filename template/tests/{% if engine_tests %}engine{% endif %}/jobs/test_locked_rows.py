"""Somebody locks one row of `jobs` and keeps it locked. Only its own job is affected."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from app.config import get_settings
from app.core.control import control
from app.core.database import sync_url
from app.jobs import Status, claims
from app.jobs.contract import Task
from app.jobs.host import Host
from app.jobs.outcomes import Outcome, Outcomes
from app.jobs.table import db_time
from tests.engine import probes
from tests.engine.core.waits import BLOCKED, locked, outside
from tests.engine.jobs.rows import (
    change,
    database_now,
    end,
    row_of,
    status_is,
    statuses,
    submit,
)
from tests.service import eventually

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("no_other_jobs")]

LEASE = timedelta(seconds=get_settings().lease)


async def test_only_the_locked_jobs_lease_is_not_extended(host: Host) -> None:
    """It is extended when the lock ends, before another host finds that its lease has ended."""
    ids = [await submit(probes.work, 60), await submit(probes.work, 60)]
    host.ring()
    lease_end = max([(await status_is(each, Status.RUNNING)).wake_at for each in ids])

    async def is_past() -> bool:
        return bool(await database_now() > lease_end + LEASE / 2)

    async with locked(ids[0]), outside() as watching:
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


async def test_an_outcome_of_a_locked_row_holds_up_no_other() -> None:
    running: dict[str, Any] = {"status": Status.RUNNING, "attempts": 1, "wake_at": db_time(60)}
    first, *others = [await submit(probes.echo, "a", **running) for _ in range(3)]
    writer = Outcomes(control)
    async with locked(first), asyncio.timeout(20):
        waits = asyncio.create_task(writer.write(Outcome(first, 1, Status.SUCCEEDED)))
        for each in others:
            assert await writer.write(Outcome(each, 1, Status.SUCCEEDED))
        assert await statuses(first, *others) == [Status.RUNNING, *[Status.SUCCEEDED] * 2]
    assert await waits
    assert await statuses(first) == [Status.SUCCEEDED]


async def test_a_foreign_key_of_another_table_is_in_nobodys_way() -> None:
    """A task writes a row that refers to its job, and works on. Its session keeps such a lock."""
    job_id = await submit(probes.echo, "a")
    claim = partial(claims.claim, job_id=job_id, task=probes.echo.name, max_running=None)
    async with locked(job_id, "KEY SHARE"), asyncio.timeout(20):
        assert await control(claim)
        extend = partial(claims.extend, held=[(job_id, 1)])
        assert await control(extend) == {job_id: True}
        assert await Outcomes(control).write(Outcome(job_id, 1, Status.SUCCEEDED))
        assert await statuses(job_id) == [Status.SUCCEEDED]


async def test_a_foreign_key_of_another_table_keeps_no_host_from_a_job(host: Host) -> None:
    job_id = await submit(probes.echo, "a", run_at=db_time(3600))
    async with locked(job_id, "KEY SHARE"), asyncio.timeout(20):
        await change(job_id, run_at=db_time(0))
        host.ring()
        await status_is(job_id, Status.SUCCEEDED)


async def test_a_host_that_freezes_in_a_claim_keeps_no_other_from_its_task() -> None:
    """It has the lock of a task with `max_running`. The others wait for two seconds at most."""
    first, second = [await submit(probes.alone, 0) for _ in range(2)]
    frozen = create_engine(sync_url(get_settings().database_url))

    async def is_taken() -> bool:
        with suppress(DBAPIError):  # it waited for the lock as long as it may
            take = partial(claims.claim, job_id=second, task=probes.alone.name, max_running=1)
            return bool(await control(take, transaction=True))
        return False

    with pytest.raises(DBAPIError, match="idle-in-transaction"), frozen.begin() as connection:
        assert claims.claim(connection, first, probes.alone.name, 1)
        await eventually(is_taken)
    frozen.dispose()
    assert await statuses(first, second) == [Status.PENDING, Status.RUNNING]
