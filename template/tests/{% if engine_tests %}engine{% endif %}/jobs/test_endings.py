"""Each end of a try is one line of the log. It shows no arguments."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from app.core import tracing
from app.core.database import AsyncSessionLocal
from app.jobs import Jobs, NonRetryable, Status, current_job, task
from app.jobs.backends import Ended, Ending, at_each_end
from app.jobs.contract import Task
from app.jobs.endings import _listeners
from app.jobs.host import Host
from app.jobs.table import db_time
from devtools.commands import COMMANDS
from tests.engine import probes
from tests.engine.jobs.rows import BACKEND, change, idle, submit
from tests.engine.jobs.watches import judging_watch
from tests.service import Service, eventually

pytestmark = pytest.mark.usefixtures("no_other_jobs")

SECRET = "what it was given"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@task(name="endings.succeeds")
async def succeeds(given: str) -> None: ...


@task(name="endings.succeeds_with_session")
async def succeeds_with_session(db: AsyncSession, given: str) -> None: ...


@task(name="endings.fails", tries=2)
async def fails(given: str) -> None:
    raise RuntimeError("no")


@task(name="endings.dies")
async def dies(given: str) -> None:
    raise NonRetryable("never")


@task(name="endings.is_stolen")
async def is_stolen(given: str) -> None:
    await change(current_job().id, attempts=2)


@task(name="endings.is_stolen_with_session")
async def is_stolen_with_session(db: AsyncSession, given: str) -> None:
    await change(current_job().id, attempts=2)


@task(name="endings.is_cancelled")
async def is_cancelled(given: str) -> None:
    async with AsyncSessionLocal.begin() as session:
        await Jobs(session).cancel(current_job().id)


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    made = Host(BACKEND, slots=1)
    yield made
    await idle(made)


TRIES: list[tuple[Task[..., Any, Any], Ending, str]] = [
    (succeeds, Ending.SUCCEEDED, "info"),
    (succeeds_with_session, Ending.SUCCEEDED, "info"),
    (fails, Ending.FAILED, "warning"),
    (dies, Ending.DEAD, "error"),
    (is_stolen, Ending.LOST, "warning"),
    (is_stolen_with_session, Ending.LOST, "warning"),
    (is_cancelled, Ending.CANCELLED, "info"),
]


@pytest.mark.parametrize(("what", "ending", "level"), TRIES, ids=lambda each: str(each))
async def test_a_try_has_one_line(
    host: Host, what: Task[..., Any, Any], ending: Ending, level: str
) -> None:
    job_id = await submit(what, SECRET, run_at=db_time(-2), origin={"request_id": "mine"})
    with capture_logs() as logs:
        await host._look()
        await idle(host)
    (line,) = [line for line in logs if line.get("job_id") == str(job_id)]
    told = {name: line[name] for name in ("event", "log_level", "outcome", "task", "queue")}
    assert told == {
        "event": f"job.{ending}",
        "log_level": level,
        "outcome": str(ending),
        "task": what.name,
        "queue": "default",
    }
    assert (line["attempt"], line["request_id"]) == (1, "mine")
    assert 2000 <= line["waited_ms"] < 60_000
    assert 0 <= line["took_ms"] < 60_000
    assert SECRET not in repr(line)


async def test_a_job_that_stops_with_its_process_is_handed_back() -> None:
    host = Host(BACKEND, slots=1)
    job_id = await submit(probes.work, 60)
    await host._look()
    with capture_logs() as logs:
        await asyncio.sleep(0)
        for running in host._running:
            running.cancel()
        await idle(host)
    (line,) = [line for line in logs if line.get("job_id") == str(job_id)]
    assert (line["event"], line["log_level"]) == ("job.handed_back", "info")


async def test_arguments_of_another_release_are_logged(host: Host) -> None:
    job_id = await submit(succeeds, SECRET, args={"other": SECRET}, signature="another")
    with capture_logs() as logs:
        await host._look()
        await idle(host)
    assert [(line["event"], line["job_id"]) for line in logs] == [("job.refused", str(job_id))]
    assert SECRET not in repr(logs)


async def test_a_job_of_a_dead_host_is_logged() -> None:
    """The line is in the trace of the submit: the try's own span ended with its process."""
    running: dict[str, Any] = {"status": Status.RUNNING, "attempts": 1, "wake_at": db_time(-1)}
    origin = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    job_id = await submit(succeeds, SECRET, origin=origin, **running)
    traces = list[dict[str, str]]()
    listener = at_each_end(lambda _: traces.append(tracing.ids()))
    try:
        with capture_logs() as logs:
            await judging_watch().step()
    finally:
        _listeners.remove(listener)
    (line,) = [line for line in logs if line.get("job_id") == str(job_id)]
    assert (line["event"], line["queue"], line["attempt"]) == ("job.taken_back", "default", 1)
    assert traces == [{"trace_id": TRACE, "span_id": SPAN}]


async def test_a_listener_hears_of_each_end(host: Host) -> None:
    heard: list[Ended] = []
    listener = at_each_end(heard.append)
    try:
        job_id = await submit(dies, SECRET)
        await host._look()
        await idle(host)
    finally:
        _listeners.remove(listener)
    (ended,) = heard
    assert (ended.id, ended.ending, type(ended.cause)) == (job_id, Ending.DEAD, NonRetryable)


@pytest.fixture(scope="module")
async def telling(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    async with Service.alone(tmp_path_factory.mktemp("telling"), LOG_JSON="true") as service:
        yield service.start_all()


async def test_a_requests_id_is_in_the_lines_of_its_job(telling: Service) -> None:
    given, order = str(uuid4()), {"item": "tea", "quantity": 1}
    answer = await telling.client.post("/orders", json=order, headers={"X-Request-ID": given})
    job_id = answer.json()["data"]["job_id"]

    def lines() -> list[dict[str, Any]]:
        told = "\n".join(telling.log(name) for name in COMMANDS).splitlines()
        found = [json.loads(line) for line in told if line.startswith("{") and job_id in line]
        return [line for line in found if line["event"] == "job.succeeded"]

    async def there() -> list[dict[str, Any]]:
        return lines()

    (line,) = await eventually(there)
    assert (line["request_id"], line["queue"], line["task"]) == (
        given,
        "orders",
        "orders.process_order",
    )
