"""A sync task that overruns its timeout: its thread goes on, but holds and writes nothing more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from app.core.concurrency import abandoned
from app.core.database import AsyncSessionLocal, SyncSessionLocal
from app.jobs import Status, task
from app.jobs.contract import Task
from app.jobs.host import Host
from app.jobs.running import LeaseLostError
from app.jobs.table import db_time, known_tasks
from tests.engine.jobs.rows import status_is, submit
from tests.service import eventually

pytestmark = pytest.mark.usefixtures("no_other_jobs")

SHORT = timedelta(seconds=3)


@dataclass
class Hanging:
    """What the test and the thread say to each other."""

    goes_on: threading.Event = field(default_factory=threading.Event)
    refused: list[Exception] = field(default_factory=list)
    has_ended: threading.Event = field(default_factory=threading.Event)


tests: list[Hanging] = []


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    tests.append(Hanging())
    yield tests[-1]
    tests[-1].goes_on.set()


def write(db: Session, name: str) -> None:
    db.execute(insert(known_tasks).values(name=name, signature="", seen_at=db_time(0)))


def hang_then_write(db: Session, name: str) -> None:
    test = tests[-1]
    test.goes_on.wait(60)
    try:
        write(db, name)
    except Exception as error:
        test.refused.append(error)
    try:
        db.commit()
    except Exception as error:
        test.refused.append(error)
    finally:
        test.has_ended.set()


@task(name="abandoned.after_a_write", tries=1, timeout=SHORT)
def after_a_write(db: Session, name: str) -> None:
    write(db, name)
    hang_then_write(db, f"{name} late")


@task(name="abandoned.in_its_own_session", tries=1, timeout=SHORT)
def in_its_own_session(name: str) -> None:
    with SyncSessionLocal() as db:
        after_a_write(db, name)


@task(name="abandoned.before_a_write", tries=1, timeout=SHORT)
def before_a_write(db: Session, name: str) -> None:
    hang_then_write(db, f"{name} late")


@task(name="abandoned.in_a_statement", tries=1, timeout=SHORT)
def in_a_statement(db: Session, name: str) -> None:
    write(db, name)
    db.execute(text("SELECT pg_sleep(3600)"))


@task(name="abandoned.writes")
def writes(db: Session, name: str) -> None:
    write(db, name)


async def run(host: Host, what: Task[..., Any, Any], name: str, status: Status) -> None:
    job_id = await submit(what, name)
    host.ring()
    await status_is(job_id, status)


async def written(name: str) -> list[str]:
    async with AsyncSessionLocal() as session:
        found = select(known_tasks.c.name).where(known_tasks.c.name.startswith(name))
        return list(await session.scalars(found))


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (after_a_write, DBAPIError),
        (in_its_own_session, DBAPIError),
        (before_a_write, LeaseLostError),
    ],
)
async def test_a_thread_that_is_abandoned_holds_no_lock_and_writes_nothing(
    host: Host,
    hanging: Hanging,
    what: Task[..., Any, Any],
    error: type[Exception],
) -> None:
    name = str(uuid4())
    await run(host, what, name, Status.DEAD)
    await run(host, writes, name, Status.SUCCEEDED)  # the same row, which only one can write
    hanging.goes_on.set()

    async def has_ended() -> bool:
        return hanging.has_ended.is_set()

    await eventually(has_ended)
    assert isinstance(hanging.refused[0], error)
    assert await written(name) == [name]
    for number in range(host.free):  # their connections are no longer those
        await run(host, writes, f"{name} {number}", Status.SUCCEEDED)


async def none_runs_on() -> bool:
    return abandoned() == 0


async def test_threads_that_run_on_are_counted_and_told(host: Host, hanging: Hanging) -> None:
    await eventually(none_runs_on)
    with capture_logs() as logs:
        ids = [await submit(before_a_write, str(uuid4())) for _ in range(2)]
        host.ring()
        for job_id in ids:
            await status_is(job_id, Status.DEAD)
    told = [line["threads"] for line in logs if line["event"] == "thread.abandoned"]
    assert told == [1, 2]
    hanging.goes_on.set()
    await eventually(none_runs_on)


@pytest.mark.postgresql
async def test_a_thread_that_waits_for_the_server_holds_no_lock_either(host: Host) -> None:
    name = str(uuid4())
    await run(host, in_a_statement, name, Status.DEAD)
    await run(host, writes, name, Status.SUCCEEDED)
