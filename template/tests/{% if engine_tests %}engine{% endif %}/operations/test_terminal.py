"""What the command shows on a terminal, however wide it is."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import Interval, Schedule, Status
from app.jobs.table import db_time
from app.jobs.timetable import reconcile
from tests.engine import probes
from tests.engine.jobs.rows import submit
from tests.engine.operations.command import jobs as command
from tests.engine.operations.command import on_a_terminal

LONG = "ValueError: " + "long " * 60

pytestmark = pytest.mark.usefixtures("no_other_jobs")


def lines_on_a_terminal(*arguments: str, columns: int) -> list[list[str]]:
    """The words of each line that the terminal shows, without colours."""
    code, said = on_a_terminal(*arguments, columns=columns, NO_COLOR="1")
    assert code == 0
    return [line.split() for line in said.splitlines()]


async def test_a_narrow_terminal_cuts_no_id_and_drops_no_column() -> None:
    dead: dict[str, Any] = {"status": Status.DEAD, "finished_at": db_time(0), "error": LONG}
    made = [str(await submit(probes.echo, "x", **dead)) for _ in range(2)]
    shown = lines_on_a_terminal("list", columns=80)
    assert [words[1] for words in shown if words[:1] == ["id"]] == made[::-1]
    assert [words[1] for words in shown if words[:1] == ["status"]] == ["dead", "dead"]
    assert {words[0] for words in shown if words} >= {"task", "queue", "tries", "created", "error"}
    for job_id in made:
        command("show", job_id)


@pytest.mark.usefixtures("no_other_schedules")
async def test_a_narrow_terminal_cuts_no_schedules_id(session: AsyncSession) -> None:
    name = "send-the-weekly-report-to-each-customer-who-has-asked-for-it"
    await reconcile(session, [Schedule(name, Interval(hours=1), probes.echo, ("x",))])
    await session.commit()
    shown = lines_on_a_terminal("schedules", columns=80)
    assert [words[1] for words in shown if words[:1] == ["id"]] == [name]


async def test_a_wide_terminal_shows_a_line_for_each_job_and_cuts_its_error() -> None:
    job_id = str(await submit(probes.echo, "x", error=LONG))
    header, row = lines_on_a_terminal("list", columns=160)
    assert header == ["id", "task", "queue", "status", "tries", "created", "next", "error"]
    assert row[0] == job_id
    assert re.fullmatch("long…|lon…|lo…|l…|…", row[-1])


async def test_a_change_of_many_jobs_shows_how_far_it_is() -> None:
    for _ in range(3):
        await submit(probes.echo, "x", status=Status.DEAD, finished_at=db_time(0), error=LONG)
    code, said = on_a_terminal("replay", "--all", "--yes", NO_COLOR="1")
    assert (code, "replayed 3 jobs" in said) == (0, True)
    assert re.search("replayed ━+ 3/3", said)
