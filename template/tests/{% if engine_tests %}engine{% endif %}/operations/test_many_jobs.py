"""Many jobs change at once: by the command, by REST and by the page."""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID

import pytest
from httpx import AsyncClient
from sqlalchemy import Connection, event, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import SyncSessionLocal, async_engine
from app.jobs import JobFilter, Jobs, Status, SyncJobs
from app.jobs.table import clock, jobs
from tests.engine import probes
from tests.engine.jobs.rows import statuses, submit
from tests.engine.operations.command import on_a_terminal

OPERATOR = {"X-API-Key": os.environ["API_KEY"]}
ENDED: dict[str, Any] = {"status": Status.SUCCEEDED, "finished_at": clock(0), "wake_at": None}
DEAD = ENDED | {"status": Status.DEAD, "error": "Oh"}

pytestmark = pytest.mark.usefixtures("no_other_jobs")


def submit_beside(**values: Any) -> UUID:
    """Submit a job without the event loop, and set other values in its row."""
    with SyncSessionLocal.begin() as other:
        job_id = SyncJobs(other).submit(probes.echo, "x").id
        other.flush()
        if values:
            other.execute(update(jobs).where(jobs.c.id == job_id).values(values))
        return job_id


@pytest.mark.parametrize(
    ("wanted", "values"),
    [("cancel --task probes.echo", {}), ("replay --error Oh", DEAD)],
    ids=["cancel", "replay"],
)
async def test_a_job_that_comes_after_the_question_is_left(
    wanted: str, values: dict[str, Any]
) -> None:
    """Another one has ended meanwhile, so that there are no more than were counted."""
    counted = await submit(probes.echo, "x", **values)
    later = list[UUID]()

    def meanwhile() -> None:
        with SyncSessionLocal.begin() as other:
            other.execute(update(jobs).where(jobs.c.id == counted).values(ENDED))
        later.append(submit_beside(**values))

    code, said = on_a_terminal(*wanted.split(), answer="y\n", meanwhile=meanwhile)
    assert (code, "1 jobs are to be" in said, "ed 0 jobs" in said) == (0, True, True)
    assert await statuses(*later) == [values.get("status", Status.PENDING)]


@pytest.mark.parametrize(
    ("action", "values"), [("cancel", {}), ("replay", DEAD)], ids=["cancel", "replay"]
)
async def test_a_request_changes_no_job_that_comes_after_its_count(
    api: AsyncClient, action: str, values: dict[str, Any]
) -> None:
    await submit(probes.echo, "x", **values)
    later = list[UUID]()

    def once_counted(_: Connection, __: object, statement: str, *___: object) -> None:
        if "count(" in statement and not later:
            later.append(submit_beside(**values))

    event.listen(async_engine.sync_engine, "after_cursor_execute", once_counted)
    wanted = {"task": probes.echo.name}
    answer = await api.post(f"/jobs/{action}", json=wanted, headers=OPERATOR)
    event.remove(async_engine.sync_engine, "after_cursor_execute", once_counted)
    assert answer.json()["data"] == {"found": 1, "changed": 1, "left": 0}
    assert await statuses(*later) == [values.get("status", Status.PENDING)]


@pytest.mark.sqlite
async def test_no_batch_reads_what_the_ones_before_have_passed(session: AsyncSession) -> None:
    """A backlog of another task lies before the jobs. On SQLite a batch holds the write lock."""
    await Jobs(session).submit_many(probes.work, [(1,)] * 5000)
    await Jobs(session).submit_many(probes.echo, [("x",)] * 4)
    await session.commit()
    connection: Any = (await (await session.connection()).get_raw_connection()).driver_connection
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    await connection.set_progress_handler(count, 1)
    operations, taken = Jobs(session), []
    for _ in range(2):
        steps = 0
        assert await operations.cancel_some(JobFilter(task=probes.echo.name), 2) == 2
        taken.append(steps)
    await connection.set_progress_handler(None, 1)
    await session.rollback()
    assert taken[0] > 5000 > taken[1]
