"""The tables of `jobs`: processes that live, queues that are paused, ticks that come."""

from __future__ import annotations

import os
import re
import socket
from datetime import datetime

import pytest
from httpx import AsyncClient
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli.output import text_of
from app.config import get_settings
from app.jobs import Interval, Schedule
from app.jobs.processes import Presence
from app.jobs.table import db_time, schedules
from app.jobs.timetable import reconcile
from app.tasks.maintenance import prune_finished_jobs
from tests.engine import probes
from tests.engine.jobs.rows import BACKEND, submit
from tests.engine.operations.command import as_json, on_a_terminal
from tests.engine.operations.command import jobs as command

OPERATOR = {"X-API-Key": os.environ["API_KEY"]}

pytestmark = pytest.mark.usefixtures("no_other_jobs")


def table(*arguments: str) -> list[list[str]]:
    """The cells of each line, without those that are empty."""
    return [re.split(" {2,}", line.strip()) for line in command(*arguments).splitlines()]


def time(shown: str) -> str:
    """A time of REST's as tables have it."""
    return text_of(datetime.fromisoformat(shown))


async def test_a_live_process_is_shown_as_rest_shows_it(
    api: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "release", "v1.2")
    presence = Presence(BACKEND, slots=3, busy=lambda: 2)
    async with presence.kept():
        await presence.say()
        listed = (await api.get("/processes", headers=OPERATOR)).json()
        assert as_json("processes") == listed
        header, row = table("processes")
    (shown,) = listed["data"]
    seen = time(shown["started_at"]), time(shown["seen_at"])
    queues = ", ".join(shown["queues"])
    names = "host, pid, back end, version, busy, started, seen, alive, queues"
    assert header == names.split(", ")
    own = [socket.gethostname(), str(os.getpid()), BACKEND, "v1.2", "2/3"]
    assert row == [*own, *seen, "yes", queues]
    assert "default" in queues
    assert command("processes") == "no processes\n"


async def test_a_job_that_waits_says_when_its_next_try_is() -> None:
    waits = str(await submit(probes.echo, "x", attempts=1, run_at=db_time(3600)))
    dead = str(await submit(probes.echo, "x", status="dead", finished_at=db_time(0)))
    shown = {each["job_id"]: time(each["run_at"]) for each in as_json("list")["data"]}
    header, *rows = table("list")
    cells = {row[0]: row for row in rows}
    assert header[-2:] == ["next", "error"]
    assert cells[waits][-1] == shown[waits] > cells[waits][-2]
    assert len(cells[dead]) == len(header) - 2
    assert ["next", shown[waits]] in table("show", waits)
    assert ["run_at", shown[dead]] in table("show", dead)


@pytest.mark.parametrize(
    ("name", "said"),
    [("send_email", "send_email: is it notifications.send_email?"), ("gone.task", "gone.task")],
)
async def test_a_task_that_is_not_there_is_named(name: str, said: str) -> None:
    """Jobs of an older release may have the name, and are found by it."""
    for action in ("list", "replay", "cancel"):
        code, shown = on_a_terminal(action, "--task", name)
        assert (code, f"this release has no task {said}" in shown.splitlines()) == (0, True)
    old = str(await submit(probes.echo, "x", task=name))
    assert table("list", "--task", name)[1][0] == old
    known = on_a_terminal("list", "--task", prune_finished_jobs.name)
    assert known == (0, "no such jobs\r\n")


async def test_a_paused_queue_says_since_when() -> None:
    command("pause", "orders")
    shown = {each["queue"]: each["paused_at"] for each in as_json("queues")["data"]}
    header, *rows = table("queues")
    command("resume", "orders")
    assert header[-1] == "paused"
    assert {row[0]: row[-1] for row in rows} == dict.fromkeys(shown, "none") | {
        "orders": time(shown["orders"])
    }


@pytest.mark.usefixtures("no_other_schedules")
async def test_a_schedule_shows_its_next_three_ticks(session: AsyncSession) -> None:
    """Only the first one is known of a schedule that can't be read, and a paused one has none."""
    names = "broken", "hourly", "paused"
    declared = [Schedule(name, Interval(hours=1), prune_finished_jobs) for name in names]
    await reconcile(session, declared)
    broken = update(schedules).where(schedules.c.id == "broken").values(definition={})
    await session.execute(broken)
    await session.commit()
    command("pause", "--schedule", "paused")
    shown = {each["id"]: each for each in as_json("schedules")["data"]}
    header, *rows = table("schedules")
    cells = {row[0]: row for row in rows}
    assert header[2] == "next"
    assert cells["broken"][2] == time(shown["broken"]["next_tick"])
    assert cells["hourly"][2] == ", ".join(map(time, shown["hourly"]["upcoming"]))
    assert len(shown["hourly"]["upcoming"]) == 3
    assert cells["paused"] == ["paused", "maintenance.prune_finished_jobs", "paused"]
