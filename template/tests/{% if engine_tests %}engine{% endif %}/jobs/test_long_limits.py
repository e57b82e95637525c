"""However long a task's backoff or its timeout is, its jobs run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.jobs import Status, task
from app.jobs.contract import Task
from app.jobs.host import Host
from app.jobs.runner import MAX_BACKOFF
from app.models import Order
from tests.engine import probes
from tests.engine.jobs.rows import BACKEND, idle, orders_of, row_of, submit

pytestmark = pytest.mark.usefixtures("no_other_jobs")


@task(name="limits.days", tries=40, backoff=timedelta(days=1))
async def days() -> None:
    raise RuntimeError("again")


@task(name="limits.longest", tries=40, backoff=timedelta.max)
async def longest() -> None:
    raise RuntimeError("again")


@task(name="limits.patient", timeout=timedelta.max)
async def patient(db: AsyncSession, item: str) -> None:
    await probes.place_order(db, item)


@task(name="limits.patient_sync", timeout=timedelta.max)
def patient_sync(db: Session, item: str) -> None:
    db.add(Order(item=item, quantity=1))


@pytest.mark.parametrize(("what", "before"), [(days, 30), (longest, 1)])
async def test_a_long_backoff_is_an_hour_at_most(what: Task[..., Any, Any], before: int) -> None:
    host, job_id = Host(BACKEND, 1), await submit(what, attempts=before)
    await host._look()
    await idle(host)
    row = await row_of(job_id)
    assert (row.status, row.error) == (Status.PENDING, "RuntimeError: again")
    assert (row.attempts, row.crashes) == (before + 1, 0)
    assert row.run_at <= row.started_at + MAX_BACKOFF + timedelta(minutes=1)


@pytest.mark.parametrize("what", [patient, patient_sync, probes.place_order])
async def test_a_long_timeout_fails_no_session(what: Task[..., Any, Any]) -> None:
    """PostgreSQL takes 24 days at most as the limit of an idle transaction."""
    host, item = Host(BACKEND, 1), str(uuid4())
    job_id = await submit(what, item)
    await host._look()
    await idle(host)
    row = await row_of(job_id)
    assert (row.status, row.error, await orders_of(item)) == (Status.SUCCEEDED, None, 1)
