"""Three ways to test a task: as a function, by what a request submits, and in the whole service."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from httpx import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import Jobs, NonRetryable, Status
from app.models import Order
from app.tasks.orders import process_order
from tests.jobs import OwnJobs
from tests.service import Service

ORDER = {"item": "book", "quantity": 2}


async def test_it_processes_the_order(session: AsyncSession) -> None:
    """A task is a function. Here the test passes the session; in the service its host does."""
    order = Order(id=uuid4(), item="book", quantity=1)
    session.add(order)
    await session.flush()
    result = await process_order(session, order.id)
    assert result == {"order_id": str(order.id), "status": "processed"}
    assert order.status == "processed"
    await session.rollback()


async def test_an_order_that_is_gone_is_not_tried_again(session: AsyncSession) -> None:
    with pytest.raises(NonRetryable, match="is gone"):
        await process_order(session, uuid4())


async def test_a_request_submits_it(api: AsyncClient, own_jobs: OwnJobs) -> None:
    """No worker runs here. The test finds the jobs that wait, and runs them itself."""
    answer = await api.post("/orders", json=ORDER)
    order_id = answer.json()["data"]["order"]["id"]
    [job] = await own_jobs.submitted()
    assert (job.task, job.args) == ("orders.process_order", {"order_id": order_id})
    assert (job.delay, job.key) == (timedelta(0), None)
    [row] = await own_jobs.run_due()
    assert (row.status, row.attempts) == (Status.SUCCEEDED, 1)
    order = (await api.get(f"/orders/{order_id}")).json()["data"]
    assert order["status"] == "processed"


async def test_one_that_waits_runs_later(session: AsyncSession, own_jobs: OwnJobs) -> None:
    order = Order(id=uuid4(), item="book", quantity=1)
    session.add(order)
    later = timedelta(hours=1)
    await Jobs(session).submit(process_order, order.id, delay=later, key=f"order:{order.id}")
    await session.commit()
    [job] = await own_jobs.submitted(process_order)
    assert (job.delay, job.key) == (later, f"order:{order.id}")
    assert await own_jobs.run_due() == []
    [row] = await own_jobs.run_due(within=later)
    assert row.status == Status.SUCCEEDED


async def test_a_job_whose_order_is_gone_is_dead_at_once(own_jobs: OwnJobs) -> None:
    """The job runs as in the service: with its own session, and its outcome is in the table."""
    row = await own_jobs.run(process_order, uuid4())
    assert (row.status, row.attempts) == (Status.DEAD, 1)
    assert str(row.error).startswith("NonRetryable: order ")


async def test_the_service_runs_it(service: Service) -> None:
    """Real processes on a real database and, where there is one, a real broker."""
    answer = await service.client.post("/orders", json=ORDER)
    data = answer.json()["data"]
    job = await service.job_is(data["job_id"], "succeeded")
    assert job["result"] == {"order_id": data["order"]["id"], "status": "processed"}
