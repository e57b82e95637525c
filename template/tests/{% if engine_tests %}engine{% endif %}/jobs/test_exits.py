"""A task fails, like any other, that raises what ends a program or what gives no outcome."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import Future
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import Jobs, RetryLater, Status, current_job, task
from app.jobs.contract import Task
from app.jobs.host import Host
from tests.engine import probes
from tests.engine.jobs.rows import BACKEND, idle, row_of, status_is, submit

pytestmark = pytest.mark.usefixtures("no_other_jobs")


@task(name="exits.cancelled", tries=1)
async def cancelled() -> None:
    waiting = asyncio.create_task(asyncio.sleep(60))
    waiting.cancel()
    await waiting


@task(name="exits.cancelled_sync", tries=1)
def cancelled_sync() -> None:
    waiting = Future[None]()
    waiting.cancel()
    waiting.result()


@task(name="exits.exits", tries=1)
async def exits() -> None:
    sys.exit(3)


@task(name="exits.exits_sync", tries=1)
def exits_sync() -> None:
    sys.exit(3)


@task(name="exits.stops_iterating", tries=1)
async def stops_iterating() -> None:
    next(iter(()))


@task(name="exits.stops_iterating_sync", tries=1)
def stops_iterating_sync() -> None:
    next(iter(()))


class Panic(BaseException):
    """What extensions that are written in Rust raise is no Exception."""


@task(name="exits.panics", tries=1)
async def panics() -> None:
    raise Panic("in Rust")


@task(name="exits.panics_sync", tries=1)
def panics_sync() -> None:
    raise Panic("in Rust")


class Busy(RetryLater):
    def __init__(self) -> None:
        """Forget the time."""


@task(name="exits.later", tries=2)
async def later() -> None:
    raise Busy


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (cancelled, "RuntimeError: the task itself raised CancelledError"),
        (cancelled_sync, "RuntimeError: the task itself raised CancelledError"),
        (exits, "RuntimeError: the task called sys.exit(3)"),
        (exits_sync, "RuntimeError: the task called sys.exit(3)"),
        (stops_iterating, "RuntimeError: coroutine raised StopIteration"),
        (stops_iterating_sync, "RuntimeError: the call raised StopIteration"),
        (panics, "RuntimeError: the task raised Panic('in Rust')"),
        (panics_sync, "RuntimeError: the task raised Panic('in Rust')"),
    ],
)
async def test_the_try_fails_and_the_host_goes_on(
    host: Host, what: Task[..., Any, Any], error: str
) -> None:
    job_id = await submit(what)
    host.ring()
    row = await status_is(job_id, Status.DEAD)
    assert (row.attempts, row.error) == (1, error)
    after = await submit(probes.echo, "goes on")
    host.ring()
    await status_is(after, Status.SUCCEEDED)


async def test_a_try_without_an_outcome_fails_with_the_reason() -> None:
    host, job_id = Host(BACKEND, 1), await submit(later)
    await host._look()
    await idle(host)
    row = await row_of(job_id)
    assert (row.status, row.crashes) == (Status.PENDING, 0)
    assert row.error == "AttributeError: 'Busy' object has no attribute 'after'"


@task(name="exits.cancels_itself")
async def cancels_itself(db: AsyncSession) -> None:
    await Jobs(db).cancel(current_job().id)


async def test_a_task_that_ends_its_own_job_in_its_session_is_dead_and_says_why(host: Host) -> None:
    job_id = await submit(cancels_itself)
    host.ring()
    row = await status_is(job_id, Status.DEAD)
    assert row.error == "NonRetryable: the task ended its own job in its session"
    assert (row.attempts, row.crashes) == (1, 0)
