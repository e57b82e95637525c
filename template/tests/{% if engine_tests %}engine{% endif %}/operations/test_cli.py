"""The command `jobs`, in separate processes, on a database that no other process uses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx import AsyncClient
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from typer.testing import CliRunner

from app.cli.commands import COMMANDS, cli
from app.cli.jobs import REPLAY, _in_batches, _report
from app.cli.running import moment
from app.jobs import JobFilter, Jobs
from app.jobs.backends import EPOCH
from app.jobs.table import db_time, jobs
from app.jobs.timetable import reconcile
from app.tasks.notifications import send_email
from app.tasks.schedules import SCHEDULES
from tests.engine.delivery.faked_time import faked_time
from tests.engine.jobs.schedule_rows import put_off_ticks
from tests.engine.operations.command import as_json, on_a_terminal
from tests.engine.operations.command import jobs as command

OPERATOR = {"X-API-Key": os.environ["API_KEY"]}
# It would set a terminal's title, make text red, and be read as markup.
STRANGE = "TimeoutError: \x1b]0;title\x07 \x1b[31m \u202e [red]no[/red] \x9b1m end"
SHOWN = r"TimeoutError: \x1b]0;title\x07 \x1b[31m \u202e [red]no[/red] \x9b1m end"

pytestmark = pytest.mark.usefixtures("no_other_jobs")


async def submit(session: AsyncSession, count: int, **values: Any) -> list[str]:
    """Submit jobs, and set values in their rows; returns the ids in the order of the submits."""
    ids = list[UUID]()
    for number in range(count):
        ids.append((await Jobs(session).submit(send_email, "ada@example.com", str(number))).id)
        await session.flush()
    if values:
        await session.execute(update(jobs).where(jobs.c.id.in_(ids)).values(values))
    await session.commit()
    return [str(job_id) for job_id in ids]


async def dead(session: AsyncSession, count: int, error: str = STRANGE) -> list[str]:
    return await submit(session, count, status="dead", error=error, finished_at=db_time(0))


def statuses(*options: str) -> dict[str, str]:
    return {job["job_id"]: job["status"] for job in as_json("list", *options)["data"]}


async def test_jobs_are_found_as_rest_finds_them(session: AsyncSession, api: AsyncClient) -> None:
    ids = await dead(session, 3)
    await submit(session, 1, key="\x1b[2J", error="none")
    listed = await api.get("/jobs?status=dead&limit=2", headers=OPERATOR)
    found = as_json("list", "--status", "dead", "--limit", "2")
    assert found == listed.json()
    rest = as_json("list", "--status", "dead", "--limit", "2", "--after", found["next"])
    assert {job["job_id"] for job in found["data"] + rest["data"]} == set(ids)
    assert rest["next"] is None
    one = await api.get(f"/jobs/{ids[0]}", headers=OPERATOR)
    assert as_json("show", ids[0]) == one.json()

    filters = ["--task", "notifications.send_email", "--queue", "notifications", "--since", "2h"]
    assert statuses(*filters, "--error", "TIMEOUT") == dict.fromkeys(ids, "dead")
    assert statuses(*filters, "--until", "2026-01-31T12:00Z") == {}


async def test_an_id_that_is_listed_can_be_given_back(session: AsyncSession) -> None:
    (job_id,) = await submit(session, 1)
    listed = command("list").splitlines()[1].split()[0]
    assert (listed, f"{job_id}\n" in command("show", listed)) == (job_id, True)


@pytest.mark.parametrize(
    ("values", "ended"),
    [
        ({"status": "running"}, "now on h:1: runs"),
        ({"status": "cancelled", "finished_at": db_time(0)}, "Z on h:1"),
        ({"status": "succeeded", "finished_at": db_time(0)}, "Z on h:1"),
        ({"status": "dead", "finished_at": db_time(0), "error": "Oh: no\nmo"}, "Z on h:1: Oh: no"),
    ],
    ids=["runs", "cancelled", "succeeded", "dead"],
)
async def test_a_try_says_no_more_than_its_row(
    session: AsyncSession, values: dict[str, Any], ended: str
) -> None:
    """No row says whether a try without an error succeeded, or was handed back or cancelled."""
    tried = {"attempts": 1, "started_at": db_time(-1), "worker": "h:1"}
    (job_id,) = await submit(session, 1, **tried, **values)
    (line,) = [each for each in command("show", job_id).splitlines() if each.startswith("tries ")]
    assert line.endswith(ended)


async def test_no_row_steers_a_terminal(session: AsyncSession) -> None:
    (job_id,) = await dead(session, 1)
    for shown in (on_a_terminal("show", job_id)[1], command("list"), command("show", job_id)):
        assert SHOWN in shown.replace("\x1b[1m", "").replace("\x1b[0m", "")
        assert not {"\x07", "\x9b", "\u202e"} & {*shown}
    assert "\x1b" not in command("list")
    assert "\x1b" not in on_a_terminal("list", NO_COLOR="1")[1]
    assert command("list", "--json").isascii()


async def test_jobs_are_changed_one_by_one(session: AsyncSession) -> None:
    one, other = await dead(session, 2)
    assert command("replay", one) == "replayed 1 job\n"
    said = command("replay", other, one, code=1)
    assert said == f"{one}: the job is not dead; nothing was changed\n"
    assert statuses() == {one: "pending", other: "dead"}
    assert as_json("cancel", one)["data"] == {"found": 1, "changed": 1, "left": 0}
    unknown = str(uuid4())
    assert command("cancel", unknown, code=1).startswith(f"no job {unknown}: `jobs list`")


async def test_many_jobs_are_changed_when_that_is_confirmed(session: AsyncSession) -> None:
    ids = await dead(session, 3)
    others = await dead(session, 1, error="ValueError")
    filtered = "replay", "--error", "timeout"
    asked = "3 jobs are to be replayed. Go on?"
    assert command(*filtered, code=2).startswith(f"{asked} Nobody can be asked here")
    code, said = on_a_terminal(*filtered, answer="n\n")
    assert (code, asked in said, "nothing was changed" in said) == (1, True, True)
    assert set(statuses().values()) == {"dead"}
    code, said = on_a_terminal(*filtered, answer="y\n")
    assert (code, "replayed 3 jobs" in said) == (0, True)
    assert statuses("--status", "pending") == dict.fromkeys(ids, "pending")
    assert command("cancel", "--all", "--yes") == "cancelled 3 jobs\n"
    assert statuses("--status", "dead") == dict.fromkeys(others, "dead")


@pytest.mark.parametrize(("key", "ends"), [("\x03", 130), ("\x04", 1)], ids=["Ctrl-C", "Ctrl-D"])
async def test_a_question_can_be_left(session: AsyncSession, key: str, ends: int) -> None:
    await dead(session, 1)
    code, said = on_a_terminal("replay", "--all", answer=key)
    assert (code, said.splitlines()[-1]) == (ends, "nothing was changed")
    assert set(statuses().values()) == {"dead"}


async def test_jobs_beyond_the_count_are_left(
    session: AsyncSession, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counting stops at 100,000 jobs. Here it is said to have stopped at 2."""
    await dead(session, 3)
    changed = await _in_batches(session, REPLAY, JobFilter().to_replay(), 2)
    assert (changed.changed, changed.left.number) == (2, 1)
    _report(changed, REPLAY, as_json=False)
    assert capsys.readouterr().out == "replayed 2 jobs; 1 such job is left\n"


@pytest.mark.usefixtures("no_other_schedules")
async def test_queues_and_schedules_are_steered(session: AsyncSession, api: AsyncClient) -> None:
    await reconcile(session, SCHEDULES)  # other tests have removed the schedules
    await put_off_ticks(session)
    assert command("pause", "orders") == "orders is paused\n"
    queues = {each["queue"]: each for each in as_json("queues")["data"]}
    listed = (await api.get("/queues", headers=OPERATOR)).json()["data"]
    assert queues["orders"] == next(each for each in listed if each["queue"] == "orders")
    assert queues["orders"]["paused_at"]
    assert command("resume", "orders") == "orders is resumed\n"
    assert as_json("pause", "orders")["data"]["paused_at"]
    resumed = as_json("resume", "orders")
    assert resumed == (await api.post("/queues/orders/resume", headers=OPERATOR)).json()
    assert command("pause", "nothing", code=1).startswith("no queue nothing: `jobs queues`")

    assert command("pause", "--schedule", "prune_jobs") == "prune_jobs is paused\n"
    schedules = as_json("schedules")
    assert schedules == (await api.get("/schedules", headers=OPERATOR)).json()
    assert {each["id"] for each in schedules["data"] if each["paused"]} == {"prune_jobs"}
    assert command("resume", "--schedule", "prune_jobs") == "prune_jobs is resumed\n"
    assert as_json("pause", "--schedule", "prune_jobs")["data"]["paused"] is True
    resumed = as_json("resume", "--schedule", "prune_jobs")
    assert resumed == (await api.get("/schedules/prune_jobs", headers=OPERATOR)).json()
    job_id = as_json("run", "prune_jobs")["data"]["job_id"]
    assert statuses("--task", "maintenance.prune_finished_jobs") == {job_id: "pending"}
    assert command("processes") == "no processes\n"


@pytest.mark.postgresql
async def test_a_queue_is_as_old_as_its_database_says(session: AsyncSession) -> None:
    await submit(session, 1)
    with faked_time() as time:
        time.shift(-3600)
        queues = as_json("queues", env=time.env)["data"]
    (oldest,) = [each["oldest_seconds"] for each in queues if each["waiting"]]
    assert 0 <= oldest < 3600


def test_the_help_says_what_there_is_and_how_it_ends() -> None:
    said = command("--help")
    assert [line.split()[0] for line in said.partition("Commands:\n")[2].splitlines()[:11]] == [
        *COMMANDS
    ]
    assert "130 it was interrupted" in " ".join(said.split())
    assert "0 done; 1 what was asked for can't be done" in " ".join(said.split())


@pytest.mark.parametrize(
    ("arguments", "env", "line"),
    [
        ("queues", {"DATABASE_URL": "postgresql://a@127.0.0.1:1/a"}, "DATABASE_URL: conn"),
        ("queues", {"DATABASE_URL": "sqlite:////no/folder/a.db"}, "DATABASE_URL: unable"),
        ("list", {"DATABASE_URL": "sqlite:///{}/new.db"}, "no such table: jobs: run `poe migr"),
        ("list", {"LOG_LEVEL": "LOUD"}, "LOG_LEVEL: must be one of DEBUG, INFO, WARNING"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: str, env: dict[str, str], line: str, tmp_path: Path
) -> None:
    env = {name: value.format(tmp_path) for name, value in env.items()}
    (said,) = command(arguments, code=1, env=env).splitlines()
    assert line in said


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("list --since 2026-01-31", "has no time zone: add Z, or one like +01:00"),
        ("list --since soon", "'soon' is not like 2h or 2026-01-31T12:00Z"),
        ("list --since 0001-01-01T00:00+01:00", "' is not within 1970 and 3000"),
        ("list --after x", "it must be what the page before named"),
        ("show 7", "Invalid value for 'ID': "),
        ("replay", "give ids, or options that name jobs; --all means every one"),
        ("cancel --status dead", "--status must be pending or running"),
        ("pause", "name a queue, or a schedule by --schedule ID"),
    ],
)
def test_a_wrong_call_says_what_is_right(arguments: str, line: str) -> None:
    """These calls use no database, so they need no process of their own."""
    done = CliRunner().invoke(cli, arguments.split())
    assert done.exit_code == 2
    assert line in done.stderr.splitlines()[-1]


def test_longer_ago_than_any_job_is_when_time_began() -> None:
    assert moment("999999d") == moment("999999w") == EPOCH
