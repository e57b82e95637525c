"""A job that fails waits for the next try, however long its backoff is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.jobs import Status, task
from app.jobs.contract import Task
from app.jobs.host import Host
from app.jobs.runner import MAX_BACKOFF
from tests.engine.jobs.rows import BACKEND, idle, row_of, submit

pytestmark = pytest.mark.usefixtures("no_other_jobs")


@task(name="backoffs.days", tries=40, backoff=timedelta(days=1))
async def days() -> None:
    raise RuntimeError("again")


@task(name="backoffs.longest", tries=40, backoff=timedelta.max)
async def longest() -> None:
    raise RuntimeError("again")


@pytest.mark.parametrize(("what", "before"), [(days, 30), (longest, 1)])
async def test_a_long_backoff_is_an_hour_at_most(what: Task[..., Any, Any], before: int) -> None:
    host, job_id = Host(BACKEND, 1), await submit(what, attempts=before)
    await host._look()
    await idle(host)
    row = await row_of(job_id)
    assert (row.status, row.error) == (Status.PENDING, "RuntimeError: again")
    assert (row.attempts, row.crashes) == (before + 1, 0)
    assert row.run_at <= row.started_at + MAX_BACKOFF + timedelta(minutes=1)
