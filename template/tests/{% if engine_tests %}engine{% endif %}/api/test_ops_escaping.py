"""Whatever rows hold, `/ops` shows it as text: no value is markup, and none is invisible."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import Status
from app.jobs.table import db_time, jobs, processes, schedules
from tests.engine import probes
from tests.engine.api.ops import text_of
from tests.engine.jobs.rows import submit

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202e\n" + "x" * 3000
# What each page shows of a row. The text in each of these places begins with the place's name.
SHOWN = {
    "/ops/jobs": {"task", "queue", "key", "error"},
    "/ops/jobs/{}": {"task", "queue", "key", "error", "result", "args", "worker"}
    | {"request", "job", "name", "tried", "error of a try"},
    "/ops/queues": {"queue"},
    "/ops/processes": {"host", "version", "backend", "carried"},
    "/ops/schedules": {"id", "task", "trigger"},
}

pytestmark = pytest.mark.usefixtures("no_other_jobs")


def hostile(place: str, most: int = 5000) -> str:
    return f"{place}{HOSTILE}"[:most]


async def submit_hostile(session: AsyncSession) -> UUID:
    job_id = await submit(probes.echo, hostile("args"))
    tried: dict[str, Any] = {"number": 1, "started_at": None, "ended_at": None}
    tried |= {"worker": hostile("tried"), "error": hostile("error of a try")}
    origin = {"request_id": hostile("request"), "job_id": hostile("job"), hostile("name"): "x"}
    values: dict[str, Any] = {
        "status": Status.DEAD,
        "finished_at": db_time(0),
        **{name: hostile(name, 90) for name in ("task", "queue", "key", "worker")},
        **{name: hostile(name) for name in ("error", "result")},
        "tries": [tried],
        "origin": origin,
    }
    await session.execute(update(jobs).where(jobs.c.id == job_id).values(values))
    return job_id


async def change_the_schedule(session: AsyncSession) -> None:
    definition = {"trigger": {"kind": "cron", "expression": hostile("trigger")}}
    values = {"id": hostile("id", 90), "task": hostile("task", 90), "definition": definition}
    await session.execute(update(schedules).values(values))


async def add_a_process(session: AsyncSession) -> None:
    now = {"started_at": db_time(0), "seen_at": db_time(0)}
    numbers: dict[str, Any] = {"pid": 1, "slots": 1, "busy": 0, "tasks": {}}
    texts = {"host": hostile("host", 90), "version": hostile("version", 90)}
    texts["backend"] = hostile("backend", 50)
    carried = [hostile("carried", 90)]
    row = now | numbers | texts | {"id": uuid4(), "queues": carried}
    await session.execute(insert(processes).values(row))


@pytest.mark.usefixtures("hourly")
async def test_nothing_that_a_row_holds_is_markup(
    page: httpx.AsyncClient, session: AsyncSession
) -> None:
    """Invisible characters are shown as escapes, and long texts are cut."""
    job_id = await submit_hostile(session)
    await change_the_schedule(session)
    await add_a_process(session)
    await session.commit()
    for path, places in SHOWN.items():
        shown = await text_of(page, path.format(job_id))
        assert {place for place in places if f"{place}&lt;script&gt;alert" not in shown} == set()
        assert "<script>alert" not in shown, path
        assert not set("\x1b\u202e") & set(shown), path
        assert "\\x1b[31m\\u202e" in shown, path
    assert "x" * 200 not in await text_of(page, "/ops/jobs")
