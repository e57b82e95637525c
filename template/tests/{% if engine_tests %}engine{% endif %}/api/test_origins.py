"""Operators see what submitted a job and what it was given, by REST and on the page."""

from __future__ import annotations

import os
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.dispatcher import run_due
from tests.engine import probes
from tests.engine.api.ops import text_of
from tests.engine.jobs.schedule_rows import add_late
from tests.jobs import OwnJobs

OPERATOR = {"X-API-Key": os.environ["API_KEY"]}

pytestmark = pytest.mark.usefixtures("no_other_schedules")


async def details(page: httpx.AsyncClient, job_id: object) -> dict[str, Any]:
    """What REST shows an operator. Others see less."""
    shown = (await page.get(f"/jobs/{job_id}", headers=OPERATOR)).json()["data"]
    seen = (await page.get(f"/jobs/{job_id}")).json()["data"]
    assert {"args", "origin"} <= shown.keys() - seen.keys()
    return {name: shown[name] for name in ("args", "origin")}


async def test_a_job_shows_the_tick_or_the_job_that_submitted_it(
    page: httpx.AsyncClient, session: AsyncSession, own_jobs: OwnJobs
) -> None:
    schedule_id, _ = await add_late(session, task=probes.hands_on.name)
    await run_due()
    [first] = await own_jobs.submitted()
    by_tick = {"schedule_id": schedule_id}
    assert await details(page, first.id) == {"args": {"text": "tick"}, "origin": by_tick}
    await own_jobs.run_due()
    [second] = await own_jobs.submitted()
    by_job = by_tick | {"job_id": str(first.id)}
    assert await details(page, second.id) == {"args": {"text": "tick"}, "origin": by_job}
    assert schedule_id in await text_of(page, f"/ops/jobs/{first.id}")
    text = await text_of(page, f"/ops/jobs/{second.id}")
    assert f'id="origin" href="/ops/jobs/{first.id}"' in text
    assert schedule_id in text
    assert "&#34;text&#34;: &#34;tick&#34;" in text


async def test_a_job_shows_the_request_that_submitted_it(
    page: httpx.AsyncClient, own_jobs: OwnJobs
) -> None:
    answer = await page.post("/orders", json={"item": "tea", "quantity": 1})
    request_id, order_id = answer.headers["X-Request-ID"], answer.json()["data"]["order"]["id"]
    [job] = await own_jobs.submitted()
    by_request = {"request_id": request_id}
    assert await details(page, job.id) == {"args": {"order_id": order_id}, "origin": by_request}
    text = await text_of(page, f"/ops/jobs/{job.id}")
    assert request_id in text and order_id in text
