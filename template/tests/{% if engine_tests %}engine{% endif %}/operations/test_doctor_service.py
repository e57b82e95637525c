"""`jobs doctor` checks a service's settings, processes and jobs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from app.config import REQUIRED, get_settings
from app.core.database import async_url
from app.doctor.work import examine_all
from app.jobs import Jobs, queues
from app.jobs.table import clock, jobs, schedules
from app.tasks.notifications import send_email
from tests.engine.operations.command import findings
from tests.engine.operations.command import jobs as jobs_command
from tests.service import Service, eventually

URLS = [name.upper() for name in REQUIRED if name.endswith("_url")]


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
    engine = create_async_engine(async_url(service.env["DATABASE_URL"]))
    async with AsyncSession(engine) as session:
        await session.execute(update(schedules).values(next_tick=clock(-100)))
        await session.execute(update(jobs).values(status="dead", finished_at=clock(0)))
        await Jobs(session).pause("default")
        await session.commit()
    await engine.dispose()
    said = findings(1, env=service.env)
    for backend in carried:
        assert f"no process of {backend} lives, " in said["fault queues"]
    assert said["note queues"] == "default is paused, 0 jobs wait: jobs resume default\n"
    assert " is late by 0:01:4" in said["fault schedules"]
    assert "1 jobs of the queue notifications are dead" in said["note jobs"]


@pytest.mark.usefixtures("no_other_jobs")
async def test_a_count_that_ended_early_says_so(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "MOST", 1)
    made = await Jobs(session).submit_many(send_email, [("ada@example.com", "Hello")] * 4)
    first = jobs.c.id.in_([job.id for job in made[:2]])
    ended = {"status": "dead", "finished_at": clock(0)}
    await session.execute(update(jobs).where(first).values(ended))
    await Jobs(session).pause("notifications")
    said = [finding.what async for finding in examine_all(session, [])]
    await session.rollback()
    assert "2+ jobs of the queue notifications are dead" in said
    assert "notifications is paused, 1+ jobs wait" in said
    assert any("lives, 1+ jobs wait in " in line for line in said)


async def test_a_service_without_faults_is_ok(tmp_path: Path) -> None:
    async with Service.alone(tmp_path).start_all() as service:

        async def well() -> bool:
            said = await asyncio.to_thread(jobs_command, "doctor", code=None, env=service.env)
            return said == "ok     no fault\n"

        await eventually(well, limit=30)
