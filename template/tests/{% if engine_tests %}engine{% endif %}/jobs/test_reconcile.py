"""A deploy changes the schedules in the table."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import Cron, Interval, Schedule, Schedules, task
from app.jobs.table import db_time, schedules
from app.jobs.timetable import reconcile
from app.schemas.schedules import ScheduleChange, ScheduleCreate
from tests.engine import probes
from tests.service import ROOT

HOURLY = Schedule("hourly", Interval(hours=1), probes.echo, ("a",))
DAILY = Schedule("daily", Cron("0 6 * * *"), probes.echo, ("a",))


@pytest.fixture(autouse=True)
async def no_other_schedules(session: AsyncSession) -> AsyncIterator[None]:
    await session.execute(delete(schedules))
    await session.commit()
    yield


async def deploy(session: AsyncSession, *declared: Schedule) -> dict[str, Row[Any]]:
    await reconcile(session, declared)
    await session.commit()
    rows = (await session.execute(select(schedules))).all()
    return {row.id: row for row in rows}


async def set_row(session: AsyncSession, **values: Any) -> None:
    await session.execute(update(schedules).values(values))


async def change(session: AsyncSession, schedule_id: str, **fields: Any) -> None:
    """Change a schedule as an operator does by PATCH."""
    service = Schedules(session)
    revision = (await service.get(schedule_id)).revision
    wanted = ScheduleChange(revision=revision, **fields)
    await service.change(schedule_id, revision, paused=wanted.paused, **wanted.definition())


async def database_now(session: AsyncSession) -> datetime:
    return (await session.execute(select(db_time(0)))).scalar_one()


async def test_a_declared_schedule_is_added_once(session: AsyncSession) -> None:
    first = await deploy(session, HOURLY, DAILY)
    assert set(first) == {"hourly", "daily"}
    wait = first["hourly"].next_tick - await database_now(session)
    assert timedelta(0) < wait <= timedelta(hours=1)
    assert first["hourly"].definition["args"] == {"text": "a"}
    assert await deploy(session, HOURLY, DAILY) == first


async def test_a_change_in_code_keeps_the_pause(session: AsyncSession) -> None:
    before = (await deploy(session, HOURLY))["hourly"]
    await set_row(session, paused=True)
    row = (await deploy(session, replace(HOURLY, trigger=Interval(weeks=1))))["hourly"]
    assert row.paused
    assert row.revision == before.revision + 1
    assert row.definition["trigger"] == {"kind": "interval", "seconds": 604_800}
    assert row.next_tick.weekday() == 3  # weeks begin on Thursday, as 1970 did
    assert row.next_tick > before.next_tick


async def test_what_fell_due_during_a_deploy_stays_due(session: AsyncSession) -> None:
    await deploy(session, HOURLY)
    fell_due = await database_now(session) - timedelta(minutes=1)
    await set_row(session, next_tick=fell_due)
    row = (await deploy(session, replace(HOURLY, args=("b",))))["hourly"]
    assert (row.definition["args"], row.next_tick) == ({"text": "b"}, fell_due)


@task(name="reconcile.tagged")
async def tagged(tags: set[str]) -> None: ...


async def test_a_set_in_another_order_is_no_change(session: AsyncSession) -> None:
    """Strings have another hash in each process."""
    declared = Schedule("tagged", Interval(hours=1), tagged, ({"a", "b", "c"},))
    row = (await deploy(session, declared))["tagged"]
    tags = row.declared["args"]["tags"][::-1]
    await set_row(session, declared={**row.declared, "args": {"tags": tags}})
    await change(session, "tagged", misfire_grace=7)
    row = (await deploy(session, declared))["tagged"]
    assert row.definition["misfire_grace"] == 7
    more = replace(declared, args=({"a", "b", "c", "d"},))
    assert (await deploy(session, more))["tagged"].definition["misfire_grace"] == 300


async def test_what_code_no_longer_has_is_removed_and_an_operators_stays(
    session: AsyncSession,
) -> None:
    await deploy(session, HOURLY, DAILY)
    own = {"id": "own", "task": "probes.echo", "trigger": {"kind": "interval", "hours": 1}}
    wanted = ScheduleCreate.model_validate({**own, "args": {"text": "own"}})
    await Schedules(session).create(wanted.id, wanted.task, wanted.definition())
    assert set(await deploy(session, DAILY)) == {"daily", "own"}
    assert set(await deploy(session)) == {"own"}
    await set_row(session, declared=text("'null'"))
    assert set(await deploy(session)) == {"own"}


async def test_an_operators_change_stays_until_the_code_changes(session: AsyncSession) -> None:
    await deploy(session, HOURLY, DAILY)
    await change(session, "hourly", args={"text": "operator's"})
    row = (await deploy(session, HOURLY, replace(DAILY, args=("b",))))["hourly"]
    assert row.definition["args"] == {"text": "operator's"}
    row = (await deploy(session, replace(HOURLY, args=("c",)), DAILY))["hourly"]
    assert row.definition["args"] == {"text": "c"}


async def test_a_declaration_that_ends_an_operators_trigger_moves_the_next_tick(
    session: AsyncSession,
) -> None:
    await deploy(session, HOURLY)
    await change(session, "hourly", trigger={"kind": "date", "at": "2999-01-01T00:00:00Z"})
    row = (await deploy(session, replace(HOURLY, args=("b",))))["hourly"]
    assert row.next_tick - await database_now(session) <= timedelta(hours=1)


async def test_one_id_twice_is_refused(session: AsyncSession) -> None:
    before = await deploy(session, HOURLY)
    with pytest.raises(ValueError, match="two schedules are named 'daily'"):
        await reconcile(session, [DAILY, DAILY])
    await session.rollback()
    assert await deploy(session, HOURLY) == before


EVERY = {"misfire_grace": timedelta(hours=1), "catch_up": "each"}


@pytest.mark.parametrize(
    ("schedule_id", "args", "options", "reason"),
    [
        ("s", (), {}, "schedule 's': probes.echo: text is missing"),
        ("s", (1,), {}, "schedule 's': probes.echo: text should be str, got int"),
        ("s", ("a", "b"), {}, "schedule 's': task probes.echo takes 1 argument$"),
        ("s", ("a",), {"misfire_grace": timedelta(-1)}, "schedule 's': misfire_grace is not"),
        ("s", ("a",), {"misfire_grace": timedelta(367)}, "schedule 's': misfire_grace is not"),
        ("s", ("a",), EVERY, "schedule 's': more than 1000 ticks within misfire_grace"),
        ("a/b", ("a",), {}, "schedule 'a/b': no id"),
        ("", ("a",), {}, "schedule '': no id"),
        ("x" * 201, ("a",), {}, "no id"),
    ],
)
def test_a_wrong_declaration_is_refused_where_it_stands(
    schedule_id: str, args: tuple[Any, ...], options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Schedule(schedule_id, Interval(seconds=1), probes.echo, args, **options)
    assert "\n" not in str(caught.value)


def test_catching_up_on_a_thousand_ticks_is_allowed() -> None:
    each = replace(HOURLY, trigger=Interval(seconds=1), catch_up="each")
    assert replace(each, misfire_grace=timedelta(seconds=999))
    with pytest.raises(ValueError, match="more than 1000 ticks"):
        replace(each, misfire_grace=timedelta(seconds=1000))


def test_no_process_starts_with_a_wrong_declaration(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "app", tmp_path / "app")
    with (tmp_path / "app" / "tasks" / "schedules.py").open("a") as file:
        file.write('Schedule("bad", Interval(hours=1), cleanup_expired_sessions, (1,))')
    command = [sys.executable, "-c", "import app.main"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    reason = "task maintenance.cleanup_expired_sessions takes 0 arguments"
    [line] = ended.stderr.splitlines()
    assert line.startswith("app/tasks/schedules.py, line ")
    assert f"ValueError: schedule 'bad': {reason}" in line
