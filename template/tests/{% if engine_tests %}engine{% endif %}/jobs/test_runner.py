"""The outcome of a try."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from app.core.database import SyncSessionLocal
from app.jobs import Status, SyncJobs, current_job, task
from app.jobs.contract import Task
from app.jobs.host import Host
from app.jobs.runner import MAX_RESULT_BYTES
from app.jobs.table import jobs
from app.jobs.tries import MAX_ERROR
from app.models import Order
from app.tasks.orders import process_order
from tests.engine import probes
from tests.engine.jobs.rows import BACKEND, idle, orders_of, row_of, status_is, submit
from tests.service import eventually

pytestmark = pytest.mark.usefixtures("no_other_jobs")


async def run(host: Host, what: Task[..., Any, Any], *args: Any) -> Row[Any]:
    """Submit a job, and wait until it has ended."""
    job_id = await submit(what, *args)
    host.ring()

    async def ended() -> Row[Any] | None:
        row = await row_of(job_id)
        return None if row.status in (Status.PENDING, Status.RUNNING) else row

    return await eventually(ended)


async def test_async_and_sync_tasks_succeed(host: Host) -> None:
    for each in (probes.echo, probes.echo_sync):
        row = await run(host, each, "hello")
        assert (row.status, row.result, row.attempts) == (Status.SUCCEEDED, "hello", 1)
        assert (row.args, row.error, row.wake_at) == (None, None, None)
        assert row.created_at <= row.started_at <= row.finished_at


@task(name="runner.place_order_sync")
def place_order_sync(db: Session, item: str) -> None:
    db.add(Order(item=item, quantity=1))


@pytest.mark.parametrize("probe", [probes.place_order, place_order_sync])
async def test_a_write_commits_with_the_outcome(host: Host, probe: Task[..., Any, Any]) -> None:
    item = str(uuid4())
    row = await run(host, probe, item)
    assert (row.status, row.args, row.wake_at) == (Status.SUCCEEDED, None, None)
    assert await orders_of(item) == 1


async def test_a_write_rolls_back_with_a_failure(host: Host) -> None:
    item = str(uuid4())
    row = await run(host, probes.order_then_fail, item)
    assert (row.status, row.attempts, await orders_of(item)) == (Status.DEAD, 2, 0)
    assert row.error == "RuntimeError: after the write"
    assert row.args == {"item": item}
    assert (row.wake_at, row.started_at <= row.finished_at) == (None, True)


@pytest.mark.parametrize(("probe", "args"), [(probes.flaky, [2]), (probes.later, [])])
async def test_a_failure_is_tried_again(
    host: Host, probe: Task[..., Any, Any], args: list[Any]
) -> None:
    row = await run(host, probe, *args)
    assert (row.status, row.error) == (Status.SUCCEEDED, None)
    assert row.result == row.attempts > 1


async def test_a_failure_waits_with_its_error_for_the_next_try() -> None:
    host, job_id = Host(BACKEND, 1), await submit(probes.flaky, 9)
    await host._look()
    await idle(host)
    row = await row_of(job_id)
    assert (row.status, row.error) == (Status.PENDING, "ConnectionError: try 1")
    assert (row.attempts, row.max_attempts, row.finished_at) == (1, 3, None)
    assert row.run_at > row.started_at


async def test_tries_are_used_up(host: Host) -> None:
    row = await run(host, probes.flaky, 9)
    assert (row.status, row.attempts, row.error) == (Status.DEAD, 3, "ConnectionError: try 3")


UNKEPT: dict[str, Any] = {
    "NaN": float("nan"),
    "infinity": -float("inf"),
    "nested too deep": json.loads("[" * 900 + "]" * 900),
    "half of a surrogate pair": "\ud800",
    "bytes that are no text": b"\xff",
    "an integer over 64 bits": 2**63,
    "one in a list": [{"n": -(10**400)}],
}


@task(name="runner.unkept")
async def unkept(name: str) -> Any:
    return UNKEPT[name]


@task(name="runner.long")
async def long(length: int) -> str:
    return "é" * length


@pytest.mark.parametrize("name", UNKEPT)
async def test_a_result_that_cannot_be_kept_makes_its_job_dead(host: Host, name: str) -> None:
    row = await run(host, unkept, name)
    assert (row.status, row.attempts, row.result) == (Status.DEAD, 1, None)
    assert row.error.startswith("NonRetryable: the result is not JSON")


async def test_a_result_has_a_limit(host: Host) -> None:
    fits = (MAX_RESULT_BYTES - 2) // 2
    row = await run(host, long, fits)
    assert (row.status, row.result) == (Status.SUCCEEDED, "é" * fits)
    row = await run(host, long, fits + 1)
    assert (row.status, row.attempts, row.result) == (Status.DEAD, 1, None)
    assert "over 256 KiB" in row.error


@task(name="runner.wordy", tries=1)
async def wordy() -> None:
    raise RuntimeError("a" * MAX_ERROR)


async def test_an_error_is_cut_and_says_so(host: Host) -> None:
    row = await run(host, wordy)
    assert row.error.startswith("RuntimeError: aaa")
    assert row.error.endswith(f"(cut: {MAX_ERROR + 14} characters)")
    assert len(row.error) < MAX_ERROR + 100


async def test_what_cannot_succeed_is_dead_at_once(host: Host) -> None:
    row = await run(host, probes.hopeless)
    assert (row.status, row.attempts) == (Status.DEAD, 1)
    row = await run(host, probes.not_json)
    assert (row.status, row.attempts) == (Status.DEAD, 1)
    assert "not JSON" in row.error


@task(name="runner.unprintable", tries=1)
async def unprintable() -> None:
    raise RuntimeError("nul \0, lone surrogate \ud800")


async def test_an_error_that_no_database_could_keep_is_kept_all_the_same(host: Host) -> None:
    row = await run(host, unprintable)
    assert row.error == "RuntimeError: nul ?, lone surrogate ?"


@pytest.mark.parametrize("probe", [probes.slow, probes.slow_sync])
async def test_a_try_is_bounded(host: Host, probe: Task[..., Any, Any]) -> None:
    row = await run(host, probe, 1.0)
    assert (row.status, row.error) == (Status.DEAD, "TimeoutError: ran longer than 0.3 s")


def steal() -> None:
    """Claim the current job, as another host does that has taken it over."""
    mine = jobs.c.id == current_job().id
    with SyncSessionLocal.begin() as other:
        other.execute(update(jobs).where(mine).values(attempts=jobs.c.attempts + 1))


@task(name="runner.stolen")
async def stolen(db: AsyncSession, item: str) -> None:
    steal()
    db.add(Order(item=item, quantity=1))


@task(name="runner.stolen_sync")
def stolen_sync(db: Session, item: str) -> None:
    steal()
    db.add(Order(item=item, quantity=1))


@task(name="runner.stolen_without_session")
async def stolen_without_session(item: str) -> str:
    steal()
    return item


@task(name="runner.stolen_then_fails", tries=1)
async def stolen_then_fails(item: str) -> None:
    steal()
    raise RuntimeError(item)


@pytest.mark.parametrize("probe", [stolen, stolen_sync, stolen_without_session, stolen_then_fails])
async def test_a_lost_lease_fences_the_outcome(probe: Task[..., Any, Any]) -> None:
    """Another host claims the job during the try, whose writes must be rolled back."""
    host, item = Host(BACKEND, 1), str(uuid4())
    job_id = await submit(probe, item)
    await host._look()
    await idle(host)
    row = await row_of(job_id)
    assert (row.status, row.attempts, row.args) == (Status.RUNNING, 2, {"item": item})
    assert (row.result, row.error, await orders_of(item)) == (None, None, 0)


@task(name="runner.itself")
def itself() -> str:
    return str(current_job().id)


async def test_a_task_knows_its_job(host: Host) -> None:
    row = await run(host, itself)
    assert row.result == str(row.id)


async def test_a_job_that_ends_dead_is_an_error_in_the_log(host: Host) -> None:
    with capture_logs() as logs:
        await run(host, probes.hopeless)
        await run(host, probes.order_then_fail, "tea")
    told = [(line["log_level"], line["event"]) for line in logs if line.get("error")]
    assert told == [("error", "job.dead"), ("warning", "job.failed"), ("error", "job.dead")]


@task(name="runner.submits")
def submits(db: Session) -> str:
    return str(SyncJobs(db).submit(probes.echo, "the next one").id)


async def test_a_sync_task_submits_another_job(host: Host) -> None:
    row = await run(host, submits)
    following = await status_is(UUID(row.result), Status.SUCCEEDED)
    assert following.result == "the next one"


async def test_an_order_that_is_gone_is_not_tried_again(host: Host) -> None:
    row = await run(host, process_order, uuid4())
    assert (row.status, row.attempts) == (Status.DEAD, 1)
