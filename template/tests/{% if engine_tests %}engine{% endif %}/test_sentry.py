"""Sentry gets each dead job and each unexpected error once, and no user's data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import create_async_engine

from app.config import get_settings
from app.core.database import async_url
from app.jobs.table import db_time, processes, schedules
from devtools.commands import COMMANDS
from tests.engine import probes
from tests.engine.receiver import Receiver
from tests.service import API_ENDED, Service, eventually

SECRET = "what-a-client-sent"
LAST = {"Connection": "close"}
QUEUES = {backend: queue for queue, backend in get_settings().queues.items()}
BROKEN = """
from fastapi import Body

from app.api.routing import Router

router = Router()


@router.post("/broken")
async def broken(told: str = Body(embed=True)) -> None:
    kept = told
    raise RuntimeError("the route is broken")
"""


@pytest.fixture
def sentry() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@asynccontextmanager
async def reporting(folder: Path, sentry: Receiver, *names: str) -> AsyncIterator[Service]:
    dsn = f"http://public@{sentry.address}/7"
    async with Service.alone(folder, SENTRY_DSN=dsn, RELEASE="1.2.3", LOG_JSON="true") as service:
        (service.folder / "app" / "api" / "broken.py").write_text(BROKEN)
        yield service.start(*names)


def events(sentry: Receiver) -> list[dict[str, Any]]:
    """The events in the envelopes. An envelope has a line, then two lines for each item."""
    found = []
    for path, body in sentry.bodies:
        assert path == "/api/7/envelope/"
        _, *rest = body.splitlines()
        heads, items = rest[::2], rest[1::2]
        found += [
            json.loads(item)
            for head, item in zip(heads, items, strict=True)
            if json.loads(head)["type"] == "event"
        ]
    return found


def told(event: dict[str, Any]) -> str:
    if "exception" in event:
        last = event["exception"]["values"][-1]
        return f"{last['type']}: {last['value']}"
    return str(event["message"])


async def reported(sentry: Receiver, **tags: str) -> dict[str, Any]:
    """Wait for the only event with these tags."""

    async def there() -> list[dict[str, Any]]:
        return [event for event in events(sentry) if tags.items() <= event["tags"].items()]

    (event,) = await eventually(there)
    return event


async def break_a_schedule(service: Service) -> str:
    engine = create_async_engine(async_url({**os.environ, **service.env}["DATABASE_URL"]))
    broken = {"definition": {"trigger": "none", "args": {"a": SECRET}}, "next_tick": db_time(-1)}
    first = select(schedules.c.id).limit(1).scalar_subquery()
    change = update(schedules).where(schedules.c.id == first).values(broken)
    async with engine.begin() as connection:
        found = await connection.scalar(change.returning(schedules.c.id))
    await engine.dispose()
    return str(found)


async def test_dead_jobs_and_errors_are_reported_once(tmp_path: Path, sentry: Receiver) -> None:
    async with reporting(tmp_path, sentry, *COMMANDS) as service:
        dead = {}
        for backend, queue in QUEUES.items():
            dead[backend] = await service.submit(probes.order_then_fail, SECRET, queue=queue)
        answer = await service.client.post(
            "/broken", json={"told": SECRET}, headers={"X-Request-ID": "mine"}
        )
        assert answer.status_code == 500
        schedule = await break_a_schedule(service)
        for job_id in dead.values():
            event = await reported(sentry, job_id=str(job_id))
            assert told(event) == "RuntimeError: after the write"
            assert event["tags"]["task"] == "probes.order_then_fail"
            assert event["tags"]["attempt"] == "2"
            assert (event["environment"], event["release"]) == ("test", "1.2.3")
        event = await reported(sentry, request_id="mine")
        assert told(event) == "RuntimeError: the route is broken"
        event = await reported(sentry, schedule_id=schedule)
        assert told(event).startswith("schedule.broken: ")
        assert set(service.stop()) <= {0, API_ENDED}
    assert len(events(sentry)) == len(dead) + 2
    assert [path for path, body in sentry.bodies if SECRET.encode() in body] == []


async def test_a_process_that_stops_sends_what_it_has(tmp_path: Path, sentry: Receiver) -> None:
    """When the rest has ended, its first report is still being sent, and the second one waits."""
    async with reporting(tmp_path, sentry, "api") as service:
        sentry.open.clear()
        for _ in range(2):
            await service.client.post("/broken", json={"told": SECRET}, headers=LAST)
        api = service.processes["api"]
        await eventually(lambda: seen(service, api.pid))
        api.terminate()
        await eventually(lambda: gone(service, api.pid))
        with pytest.raises(subprocess.TimeoutExpired):
            api.wait(0.5)
        sentry.open.set()
        assert api.wait(20) == API_ENDED
        assert [told(each) for each in events(sentry)] == ["RuntimeError: the route is broken"] * 2


async def seen(service: Service, pid: int) -> bool:
    engine = create_async_engine(async_url({**os.environ, **service.env}["DATABASE_URL"]))
    async with engine.connect() as connection:
        found = await connection.scalar(select(processes.c.id).where(processes.c.pid == pid))
    await engine.dispose()
    return found is not None


async def gone(service: Service, pid: int) -> bool:
    return not await seen(service, pid)


def test_sentry_is_not_imported_while_its_address_is_unset() -> None:
    program = "import sys, app.main; print([name for name in sys.modules if 'sentry' in name])"
    env = {**os.environ, "SENTRY_DSN": ""}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_start_uses_nothing_that_sentry_deprecates() -> None:
    program = "from app.core.logging import configure_logging; configure_logging()"
    env = {**os.environ, "SENTRY_DSN": "https://key@sentry.example.com/1"}
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", program]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("dsn", ["sentry", "https://sentry.example.com/1", "https://key@host/"])
def test_a_wrong_address_is_one_line(dsn: str) -> None:
    program = "from app.config import get_settings; get_settings()"
    env = {**os.environ, "SENTRY_DSN": dsn}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "SENTRY_DSN: must be a DSN as Sentry shows it: https://KEY@HOST/NUMBER"
    )
