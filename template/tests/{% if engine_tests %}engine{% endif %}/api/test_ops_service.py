"""What `/ops` shows of queues, processes and schedules, and what its buttons do to them."""

from __future__ import annotations

import os
import re
from datetime import datetime
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import AsyncSessionLocal
from app.jobs import Jobs, Schedules, Status, queues
from app.jobs.table import db_time, schedules
from app.ops.text import iso
from tests.engine import probes
from tests.engine.api.ops import press, send, text_of
from tests.engine.jobs.rows import change, submit
from tests.service import eventually

OPERATOR = {"X-API-Key": os.environ["API_KEY"]}

pytestmark = pytest.mark.usefixtures("no_other_jobs")


async def test_a_queue_pauses_and_goes_on(page: httpx.AsyncClient) -> None:
    for action, paused in (("pause", True), ("resume", False)):
        answer = await send(page, f"/ops/queues/{action}", queue="default")
        assert answer.status_code == 303
        async with AsyncSessionLocal() as session:
            (found,) = [each for each in await Jobs(session).queues() if each.name == "default"]
        assert (found.paused_at is not None) is paused
    text = await text_of(page, "/ops/queues")
    assert "Queue default: resumed." in text
    assert (await send(page, "/ops/queues/pause", queue="none")).status_code == 404


async def test_a_queue_that_nobody_carries_is_called_out(page: httpx.AsyncClient) -> None:
    stray = await submit(probes.echo, "hello")
    await change(stray, queue="elsewhere")
    text = await text_of(page, "/ops/queues")
    assert "<strong>default</strong>: no live process carries it." in text
    assert "<strong>elsewhere</strong>: QUEUES doesn&#39;t name it" in text


async def test_a_queue_may_have_dead_jobs_beyond_the_counted(
    page: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "MOST", 1)
    for _ in range(2):
        await submit(probes.echo, "hello", status=Status.DEAD, finished_at=db_time(0))
    text = await text_of(page, "/ops/queues")
    assert re.search(r'id="dead-orders"[^>]+>0\+<', text)


async def test_processes_are_listed(page: httpx.AsyncClient, host: object) -> None:
    async def listed() -> str | None:
        text = await text_of(page, "/ops/processes")
        return text if "0/4" in text else None

    assert 'class="status succeeded">alive' in await eventually(listed)


async def test_a_schedule_pauses_goes_on_and_runs(page: httpx.AsyncClient, hourly: str) -> None:
    text = await text_of(page, "/ops/schedules")
    assert hourly in text and "every 1 h" in text and re.search("in (29|30) min", text)
    for action, paused in (("pause", True), ("resume", False)):
        text = await press(page, text, f"{action}-{quote(hourly)}")
        async with AsyncSessionLocal() as session:
            assert (await Schedules(session).get(hourly)).paused is paused
    text = await press(page, text, f"run-{quote(hourly)}")
    assert f"A job of {hourly} is submitted." in text and "tick" in text


async def test_the_next_three_ticks_of_a_schedule_are_shown(
    page: httpx.AsyncClient, hourly: str
) -> None:
    answer = await page.get(f"/schedules/{hourly}", headers=OPERATOR)
    ticks = [iso(datetime.fromisoformat(tick)) for tick in answer.json()["data"]["upcoming"]]
    text = await text_of(page, "/ops/schedules")
    assert re.findall(r'<time datetime="([^"]+)"', text) == ticks
    assert len(ticks) == 3
    assert "<time" not in await press(page, text, f"pause-{quote(hourly)}")


async def test_a_change_of_a_schedule_leads_back_to_its_page(
    page: httpx.AsyncClient, hourly: str
) -> None:
    text = await text_of(page, "/ops/schedules", after="!")
    for action in ("pause", "resume"):
        text = await press(page, text, f"{action}-{quote(hourly)}")
        assert "after=%21" in text
    assert "after" not in await text_of(page, "/ops/schedules")


async def test_a_schedule_that_has_changed_meanwhile_stays(
    page: httpx.AsyncClient, hourly: str
) -> None:
    stale = {"schedule": hourly, "revision": 7}
    answer = await send(page, "/ops/schedules/pause", **stale)
    assert (answer.status_code, "changed since" in answer.text) == (409, True)
    for revision in (0, 2**31):
        wrong = await send(page, "/ops/schedules/pause", schedule=hourly, revision=revision)
        assert (wrong.status_code, "revision: " in wrong.text) == (422, True)


async def test_a_late_schedule_and_missed_ticks_are_called_out(
    page: httpx.AsyncClient, session: AsyncSession, hourly: str
) -> None:
    late = {
        "next_tick": db_time(-600),
        "missed_since": db_time(-7200),
        "missed_until": db_time(-3600),
    }
    await session.execute(update(schedules).values(late))
    await session.commit()
    text = await text_of(page, "/ops/schedules")
    assert "late by 10 min" in text
    assert re.search(r"missed: <time[^>]+>2 h ago</time> to <time[^>]+>1 h ago", text)
