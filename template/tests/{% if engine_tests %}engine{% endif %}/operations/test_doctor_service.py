"""`jobs doctor` checks a service's settings, processes and jobs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Executable, insert, text, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from app.config import REQUIRED, get_settings
from app.core.database import async_url
from app.doctor.work import examine_all
from app.jobs import Jobs, queues
from app.jobs.table import db_time, jobs, processes, schedules
from app.tasks.notifications import send_email
from tests.engine.jobs.schedule_rows import put_off_ticks
from tests.engine.operations.command import findings
from tests.engine.operations.command import jobs as jobs_command
from tests.service import START_LIMIT, Service, eventually

DAY = timedelta(days=1)
SEEN = {"started_at": db_time(0), "seen_at": db_time(0)}
ALIVE = SEEN | {"host": "h", "pid": 1, "queues": [], "tasks": {}, "slots": 0, "busy": 0}
URLS = [name.upper() for name in REQUIRED if name.endswith("_url")]


# What the code of a new release might change.
NEW_SCHEDULES = """
from dataclasses import replace

SCHEDULES.remove(next(each for each in SCHEDULES if each.id == "prune_jobs"))
SCHEDULES[1] = replace(SCHEDULES[1], misfire_grace=timedelta(hours=7))
SCHEDULES.append(Schedule("a_new_one", Interval(hours=1), prune_finished_jobs))
"""


@asynccontextmanager
async def changing(service: Service) -> AsyncIterator[AsyncSession]:
    """A session on the service's database. It commits at the end."""
    engine = create_async_engine(async_url({**os.environ, **service.env}["DATABASE_URL"]))
    async with AsyncSession(engine) as session:
        yield session
        await session.commit()
    await engine.dispose()


async def no_tick_is_near(service: Service) -> None:
    async with changing(service) as session:
        await put_off_ticks(session)


def test_what_production_lacks(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_KEYY=x\n")
    own = {"ENVIRONMENT": "production", "API_KEY": "", "ENV_FILE": str(tmp_path / ".env")}
    trusted = '["DATABASE_URL"]'
    env = {**own, "DATABASE_URL": "postgresql://app@127.0.0.1:1/app", "TRUSTED_URLS": trusted}
    said = jobs_command("doctor", code=1, env=env | dict.fromkeys(URLS, ""))
    for name in REQUIRED:
        assert f"{name.upper()} must" in said
    assert "note   settings    nothing reads API_KEYY of .env: is it API_KEY?" in said


async def test_what_no_process_works_on(tmp_path: Path) -> None:
    """Here no process runs. In the next test all run, and the doctor finds no fault."""
    service = Service.alone(tmp_path)
    carried = sorted({*get_settings().queues.values()})
    await service.submit(send_email, "ada@example.com", "Hello")
    async with changing(service) as session:
        await session.execute(update(schedules).values(next_tick=db_time(-7200)))
        await session.execute(update(jobs).values(status="dead", finished_at=db_time(0)))
        await Jobs(session).pause("default")
    said = findings(1, env=service.env)
    for backend in carried:
        assert f"no process of {backend} lives, " in said["fault queues"]
    assert said["note queues"] == "default is paused, 0 jobs wait: jobs resume default\n"
    assert " is late by 2:0" in said["fault schedules"]
    assert "1 job of the queue notifications is dead" in said["note jobs"]


@pytest.mark.usefixtures("no_other_jobs")
async def test_a_count_that_ended_early_says_so(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "MOST", 1)
    made = await Jobs(session).submit_many(send_email, [("ada@example.com", "Hello")] * 4)
    first = jobs.c.id.in_([job.id for job in made[:2]])
    ended = {"status": "dead", "finished_at": db_time(0)}
    await session.execute(update(jobs).where(first).values(ended))
    await Jobs(session).pause("notifications")
    said = [finding.what async for finding in examine_all(session, [], newer=False)]
    await session.rollback()
    assert "2+ jobs of the queue notifications are dead" in said
    assert "notifications is paused, 1+ jobs wait" in said
    assert any("lives, 1+ jobs wait in " in line for line in said)


@pytest.mark.usefixtures("no_other_jobs")
async def test_one_job_waits_and_several_wait(session: AsyncSession) -> None:
    for queue, count in (("notifications", 1), ("orders", 2)):
        calls = [("ada@example.com", "Hello")] * count
        await Jobs(session).submit_many(send_email, calls, queue=queue)
        await Jobs(session).pause(queue)
    said = [finding.what async for finding in examine_all(session, [], newer=False)]
    await session.rollback()
    assert "notifications is paused, 1 job waits" in said
    assert "orders is paused, 2 jobs wait" in said


@pytest.mark.usefixtures("no_other_jobs")
async def test_a_queue_that_nothing_carries(session: AsyncSession) -> None:
    """Its jobs are due later. Dead jobs alone are no fault."""
    for queue, status in (("reports", "pending"), ("former", "dead")):
        job = await Jobs(session).submit(send_email, "ada@example.com", "", delay=DAY)
        values = {"queue": queue, "status": status, "finished_at": db_time(0)}
        await session.execute(update(jobs).where(jobs.c.id == job.id).values(values))
    said = [finding.what async for finding in examine_all(session, [], newer=False)]
    await session.rollback()
    (found,) = [line for line in said if line.startswith("nothing carries ")]
    assert found == "nothing carries a queue that has jobs, 0 due: reports"


def test_schedules_that_the_table_does_not_have(tmp_path: Path) -> None:
    service = Service.alone(tmp_path)
    asyncio.run(no_tick_is_near(service))
    with (tmp_path / "app" / "tasks" / "schedules.py").open("a") as code:
        code.write(NEW_SCHEDULES)
    how = {"folder": tmp_path, "env": service.env}
    said = findings(1, **how)["fault schedules"]
    assert ": a_new_one, daily_report, prune_jobs: run `poe migrate`" in said
    migrate = [sys.executable, "-m", "app.migrate"]
    subprocess.run(migrate, check=True, cwd=tmp_path, env={**os.environ, **service.env})
    asyncio.run(no_tick_is_near(service))  # what is new is due at the next full hour
    assert findings(1, **how)["fault schedules"] == ""


@pytest.mark.parametrize(
    "sign",
    [
        [text("INSERT INTO alembic_version VALUES ('jobs_9999')")],
        [insert(processes).values(id=uuid4(), version=each, **ALIVE) for each in "12"],
    ],
    ids=["schema", "versions"],
)
async def test_schedules_of_another_release_are_noted(
    tmp_path: Path, sign: list[Executable]
) -> None:
    """Its `poe migrate` has declared them. This release's would delete them."""
    service = Service.alone(tmp_path)
    added = update(schedules).where(schedules.c.id == "daily_report").values(id="added")
    async with changing(service) as session:
        for statement in (added, *sign):
            await session.execute(statement)
    await no_tick_is_near(service)
    said = findings(1, env=service.env)
    assert said["fault schedules"] == ""
    (line,) = said["note schedules"].splitlines()
    assert line.startswith("the table doesn't have what the code declares: added, daily_report: ")
    assert "poe migrate" not in line


async def test_a_schedule_that_cannot_run(tmp_path: Path) -> None:
    """The declared one can't be deleted."""
    service = Service.alone(tmp_path)
    await no_tick_is_near(service)
    broken = update(schedules).values(definition={})
    async with changing(service) as session:
        await session.execute(broken.where(schedules.c.id == "prune_jobs"))
        by_operator = schedules.c.id == "daily_report"
        await session.execute(broken.where(by_operator).values(id="own", declared=None))
    lines = findings(1, env=service.env)["fault schedules"].splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == [
        "run `poe migrate` (python -m app.migrate)",  # it brings daily_report back
        "change it or delete it",
        "change it",
    ]


async def test_a_task_that_no_process_knows(service: Service) -> None:
    hour = timedelta(hours=1)
    job_id = await service.submit(send_email, "ada@example.com", "Hello", delay=hour)
    async with changing(service) as session:
        gone = update(jobs).where(jobs.c.id == job_id).values(task="notifications.gone")
        await session.execute(gone)
    said = findings(1, env=service.env)["fault jobs"]
    assert "no live process that carries it knows notifications.gone: deploy" in said
    jobs_command("cancel", str(job_id), env=service.env)
    assert findings(None, env=service.env)["fault jobs"] == ""


async def test_a_queue_that_a_live_back_end_does_not_carry(service: Service) -> None:
    queues = get_settings().queues
    backend = queues["default"]
    env = {**service.env, "QUEUES": json.dumps({**queues, "reports": backend})}
    said = findings(1, env=env)["fault queues"]
    assert f"no live process of {backend} carries a queue, 0 jobs wait in reports: give" in said


async def test_a_service_without_faults_is_ok(tmp_path: Path) -> None:
    async with Service.alone(tmp_path).start_all() as service:

        async def well() -> bool:
            said = await asyncio.to_thread(jobs_command, "doctor", code=None, env=service.env)
            return said == "ok     no fault\n"

        await eventually(well, START_LIMIT)
