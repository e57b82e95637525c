"""Rows with garbage in any column: each is shown, can be ended, and harms no other."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from app import ops
from app.api import errors
from app.api import jobs as jobs_api
from app.api import queues as queues_api
from app.api import schedules as schedules_api
from app.config import get_settings
from app.doctor.work import examine_all
from app.jobs import Interval, Jobs, Schedule, Status
from app.jobs.contract import registry
from app.jobs.dispatcher import run_due
from app.jobs.host import Host
from app.jobs.schedules import definition_of
from app.jobs.table import db_time, jobs, known_tasks, processes, schedules
from tests.engine import probes
from tests.engine.api.garbage import cases, put
from tests.engine.api.ops import log_in
from tests.engine.jobs.rows import status_is, statuses, submit
from tests.engine.jobs.watches import judging_watch

pytestmark = pytest.mark.usefixtures("no_other_jobs")

KEY = get_settings().api_key
OPERATOR = {"X-API-Key": KEY.get_secret_value() if KEY else ""}
TOO_LONG, NUL, HALF = "x" * 201, "a\0", "\ud800"
ODD: list[Any] = [None, 1, [], TOO_LONG, NUL, HALF]
ODD_TASKS = [*ODD, {"fits": ""}, {TOO_LONG: ""}, {NUL: ""}, {HALF: ""}, *({"": x} for x in ODD)]
ODD_QUEUES = [[], [[]], [None], [{}], [NUL], [HALF]]
BROKEN: list[Any] = [None, [], {}, "x", "first3", "cancel", -1, 1e308, True, {"kind": "lunar"}]


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    api = FastAPI()
    errors.install(api)
    api.include_router(jobs_api.router)
    api.include_router(queues_api.router)
    api.include_router(schedules_api.router)
    ops.install(api)
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=OPERATOR
    ) as opened:
        assert (await log_in(opened)).status_code == 303
        yield opened


@pytest.fixture(autouse=True)
async def no_other_schedules(session: AsyncSession) -> AsyncIterator[None]:
    yield
    await session.execute(delete(schedules))
    await session.commit()


async def test_jobs(session: AsyncSession, client: httpx.AsyncClient, host: Host) -> None:
    """Each job has one wrong value. Its status is random, by a seed."""
    choose, bad = random.Random(1), dict[UUID, str]()
    for column, literal in cases(jobs, "id", "task"):
        values = {"status": choose.choice([*Status]), "started_at": db_time(0)}
        job_id = await submit(probes.echo, "bad", queue="default", wake_at=db_time(9), **values)
        if await put(session, jobs, job_id, column, literal):
            bad[job_id] = f"{column} = {literal[:40]}"
        await session.commit()
    good = [await submit(probes.echo, "good"), await submit(probes.alone, 0)]
    with capture_logs() as logs:
        host.ring()
        for job_id in good:
            await status_is(job_id, Status.SUCCEEDED)
        await judging_watch().step()
        host.ring()
    warnings = [line for line in logs if line["log_level"] == "warning"]
    assert [line for line in warnings if not line["event"].startswith("job.")] == []
    for status in Status:
        answer = await client.get("/jobs", params={"status": status, "limit": 1000})
        assert answer.status_code == 200, (status, answer.text)
    for query in ({"status": "any"}, {"status": "any", "error": "x"}, {"queue": "default"}):
        assert (await client.get("/jobs", params=query)).status_code == 200, query
    for path, selection in (("replay", {"task": "probes.echo"}), ("cancel", {"key": "x"})):
        answer = await client.post(f"/jobs/{path}", json=selection | {"dry_run": True})
        assert answer.status_code == 200, answer.text
    for path in ("/queues", "/ops/queues", "/ops/jobs", "/ops/jobs?status=dead"):
        assert (await client.get(path)).status_code == 200, path
    for job_id, what in bad.items():
        page = await client.get(f"/ops/jobs/{job_id}")
        assert page.status_code == 200, (what, page.text)
        shown = await client.get(f"/jobs/{job_id}")
        assert shown.status_code == 200, (what, shown.text)
        ended = shown.json()["data"]["status"] in ("succeeded", "dead", "cancelled")
        answer = await client.post(f"/jobs/{job_id}/cancel")
        assert answer.status_code == (409 if ended else 200), (what, answer.text)
        if shown.json()["data"]["status"] == "dead":
            again = await client.post(f"/jobs/{job_id}/replay")
            assert again.status_code in (200, 409), (what, again.text)


async def test_processes(session: AsyncSession, client: httpx.AsyncClient) -> None:
    """Each process has one wrong value. Those that seem to live are counted, and none lasts."""
    waits = await submit(probes.echo, "a", task="of.another", run_at=db_time(-9999))
    row: dict[str, Any] = {"host": "bad", "pid": 1, "slots": 1, "started_at": db_time(-9)}
    row |= {"queues": ["default"], "tasks": {"of.another": "0"}, "busy": 0, "seen_at": db_time(0)}
    odd = [("tasks", quoted(each)) for each in ODD_TASKS]
    odd += [("queues", quoted(each)) for each in ODD_QUEUES]
    for column, literal in [*odd, *cases(processes, "id")]:
        await session.execute(insert(processes).values(id=(process_id := uuid4()), **row))
        await put(session, processes, process_id, column, literal)
    await session.commit()
    await judging_watch().step()
    known = set(await session.scalars(select(known_tasks.c.name)))
    assert known >= {"of.another", "fits", *registry()}
    await session.rollback()
    for path in ("/processes", "/queues", "/ops/processes", "/ops/queues"):
        answer = await client.get(path)
        assert answer.status_code == 200, (path, answer.text)
    states = await Jobs(session).processes()
    said = [finding.what async for finding in examine_all(session, states, newer=False)]
    assert [what for what in said if "of.another" in what] == []
    await session.rollback()
    assert await statuses(waits) == [Status.PENDING]


async def test_schedules(session: AsyncSession, client: httpx.AsyncClient) -> None:
    whole = definition_of(Schedule("good", Interval(hours=1), probes.echo, ("tick",)))
    due = {"definition": whole, "task": probes.echo.name, "next_tick": db_time(-1)}
    await session.execute(insert(schedules).values(id="good", **due))
    bad = dict[str, str]()
    for column, literal in cases(schedules, "id", more=broken(whole)):
        name = f"bad {len(bad)}"
        await session.execute(insert(schedules).values(id=name, **due))
        if await put(session, schedules, name, column, literal):
            bad[name] = f"{column} = {literal[:99]}"
        else:
            await session.execute(delete(schedules).where(schedules.c.id == name))
    await session.commit()
    await run_due()
    last = select(schedules.c.last_job_id).where(schedules.c.id == "good")
    assert await session.scalar(last)
    await session.rollback()
    answer = await client.get("/schedules", params={"limit": 1000})
    assert answer.status_code == 200, answer.text
    assert {each["id"] for each in answer.json()["data"]} == {"good", *bad}
    page = await client.get("/ops/schedules")
    assert page.status_code == 200, page.text
    for name, what in bad.items():
        await check_schedule(client, name, what)


def broken(whole: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Definitions in which one part is missing or wrong."""
    for name in whole:
        yield "definition", quoted({each: whole[each] for each in whole if each != name})
        yield from (("definition", quoted({**whole, name: each})) for each in BROKEN)


def quoted(value: Any) -> str:
    return f"'{json.dumps(value)}'"


async def check_schedule(client: httpx.AsyncClient, name: str, what: str) -> None:
    """It is shown, can be paused, and can be deleted, unless its row says that code declares it."""
    path = f"/schedules/{name}"
    shown = await client.get(path)
    assert shown.status_code == 200, (what, shown.text)
    data = shown.json()["data"]
    for change in ({"paused": False}, {"overlap": "queue"}, {"paused": True}):
        revision = data["revision"]
        answer = await client.patch(path, json={"revision": revision, **change})
        allowed = {200} if change.get("paused") else {200, 409, 422}
        allowed |= {409, 422} if what.startswith("revision") else set()
        assert answer.status_code in allowed, (what, change, answer.text)
        data = answer.json()["data"] if answer.status_code == 200 else data
    run = await client.post(f"{path}/run")
    assert run.status_code in (202, 409), (what, run.text)
    gone = await client.delete(path)
    assert gone.status_code == (409 if data["declared"] else 204), (what, gone.text)


@pytest.mark.parametrize(
    ("column", "literal", "problem"),
    [
        ("status", "'paused'", "status: "),
        ("attempts", "2147483647", "attempts: at the limit"),
        ("result", """'"\\ud800"'""", "result: JSON can't say it"),
        ("origin", """'{"job_id":"\\ud800"}'""", "origin: JSON can't say it"),
        pytest.param("run_at", "'infinity'", "run_at: ", marks=pytest.mark.postgresql),
        pytest.param("created_at", "'0044-03-15 BC'", "created_at: ", marks=pytest.mark.postgresql),
        pytest.param("started_at", "'yesterday'", "started_at: ", marks=pytest.mark.sqlite),
    ],
)
async def test_a_job_says_what_is_wrong_with_its_row_and_does_not_run(
    session: AsyncSession,
    client: httpx.AsyncClient,
    host: Host,
    column: str,
    literal: str,
    problem: str,
) -> None:
    later: dict[str, Any] = {
        "run_at": db_time(0 if column in ("status", "attempts") else 9),
        "wake_at": db_time(-9),
    }
    job_id = await submit(probes.echo, "bad", **later)
    assert await put(session, jobs, job_id, column, literal)
    await session.commit()
    good = await submit(probes.echo, "good")
    host.ring()
    await status_is(good, Status.SUCCEEDED)
    await judging_watch().step()
    assert (await client.get(f"/ops/jobs/{job_id}")).status_code == 200
    data = (await client.get(f"/jobs/{job_id}")).json()["data"]
    assert data["problem"].startswith(problem)
    assert (await client.post(f"/jobs/{job_id}/cancel")).status_code == 200
    assert (await client.get(f"/jobs/{good}")).json()["data"]["problem"] is None


@pytest.mark.parametrize(
    ("part", "value"),
    [("catch_up", "first3"), ("overlap", "cancel"), ("misfire_grace", "300"), ("trigger", None)],
)
async def test_a_schedule_of_a_newer_release_waits_for_it(
    session: AsyncSession, client: httpx.AsyncClient, part: str, value: Any
) -> None:
    whole = definition_of(Schedule("s", Interval(hours=1), probes.echo, ("tick",)))
    row = {"definition": {**whole, part: value}, "task": probes.echo.name, "next_tick": db_time(-1)}
    await session.execute(insert(schedules).values(id="newer", **row))
    await session.commit()
    await run_due()
    data = (await client.get("/schedules", params={"limit": 1000})).json()["data"][0]
    assert data["problem"].startswith(part)
    assert (data["last_job_id"], data["next_tick"] is None) == (None, False)
    paused = await client.patch("/schedules/newer", json={"revision": 1, "paused": True})
    assert (paused.status_code, paused.json()["data"]["paused"]) == (200, True)
    mended = {"revision": 2, part: whole[part]}
    answer = await client.patch("/schedules/newer", json=mended)
    assert (answer.status_code, answer.json()["data"]["problem"]) == (200, None)
