"""Many jobs change at once: by the command, by REST and by the page."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from httpx import AsyncClient
from sqlalchemy import Connection, delete, event, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli import jobs as cli_jobs
from app.core.database import IS_SQLITE, SyncSessionLocal, async_engine
from app.jobs import JobFilter, Jobs, Status, SyncJobs
from app.jobs.table import db_time, jobs
from tests.engine import probes
from tests.engine.jobs.rows import statuses, submit
from tests.engine.operations.command import JOBS, as_json, on_a_terminal
from tests.engine.operations.command import jobs as command
from tests.service import ROOT, eventually

OPERATOR = {"X-API-Key": os.environ["API_KEY"]}
ENDED: dict[str, Any] = {"status": Status.SUCCEEDED, "finished_at": db_time(0), "wake_at": None}
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
    assert (code, "1 job is to be" in said, "ed 0 jobs" in said) == (0, True, True)
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


TRIGGER = """
    CREATE TRIGGER held BEFORE UPDATE ON jobs FOR EACH ROW WHEN (OLD.status = 'running')
"""
REFUSE_AFTER = {  # an update of a running job: a batch of its own
    "sqlite": [f"{TRIGGER} BEGIN SELECT RAISE(ABORT, 'refused'); END"],
    "postgresql": [
        "CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_advisory_xact_lock(7); RAISE 'refused'; END $$",
        f"{TRIGGER} EXECUTE FUNCTION held()",
    ],
}
MEND = {
    "sqlite": ["DROP TRIGGER held"],
    "postgresql": ["DROP TRIGGER held ON jobs", "DROP FUNCTION held"],
}


@pytest.fixture
async def refused_after_one(no_other_jobs: None, session: AsyncSession) -> AsyncIterator[None]:
    """Two jobs, of which only the first can be cancelled."""
    await submit(probes.echo, "x")
    await submit(probes.echo, "x", status=Status.RUNNING)
    database = session.get_bind().dialect.name
    for statement in REFUSE_AFTER[database]:
        await session.execute(text(statement))
    await session.commit()
    yield
    for statement in MEND[database]:
        await session.execute(text(statement))
    await session.commit()


@pytest.mark.usefixtures("refused_after_one")
def test_a_command_that_fails_on_its_way_says_how_far_it_came() -> None:
    stopped, why = command("cancel", "--all", "--yes", code=1).splitlines()
    assert stopped == "cancelled at least 1 of 2 jobs, then stopped"
    assert "refused" in why


@pytest.mark.postgresql
@pytest.mark.usefixtures("refused_after_one")
async def test_an_interrupted_command_says_how_far_it_came(session: AsyncSession) -> None:
    await session.execute(text("SELECT pg_advisory_xact_lock(7)"))
    waits = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")

    async def is_held() -> bool:
        return bool(await session.scalar(waits))

    process = await asyncio.create_subprocess_exec(
        JOBS, "cancel", "--all", "--yes", cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    await eventually(is_held)
    process.send_signal(signal.SIGINT)
    _, said = await process.communicate()
    await session.rollback()
    assert said.decode().splitlines()[0] == "cancelled at least 1 of 2 jobs, then stopped"
    assert process.returncode == 130, said.decode()


async def test_a_question_says_if_there_may_be_more(session: AsyncSession) -> None:
    """Counting stops at 100,000 jobs."""
    await submit(probes.echo, "x")
    copied = [each for each in jobs.c if each.name != "id"]
    new_id = func.randomblob(16) if IS_SQLITE else func.gen_random_uuid()
    for _ in range(17):  # each time there are twice as many
        both = select(func.lower(func.hex(new_id)) if IS_SQLITE else new_id, *copied)
        await session.execute(insert(jobs).from_select(["id", *copied], both))
    await session.commit()
    said = command("cancel", "--all", code=2)
    await session.execute(delete(jobs))
    await session.commit()
    assert said.startswith("100000 or more jobs are to be cancelled. Go on? Nobody can be asked")


@pytest.mark.parametrize(
    ("waiting", "running", "said"),
    [(3, 0, "2 or more"), (1, 2, "3 or more"), (1, 1, "2"), (0, 0, "")],
)
async def test_a_count_says_if_there_may_be_more(
    session: AsyncSession,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    waiting: int,
    running: int,
    said: str,
) -> None:
    """Counting stops at 100,000 jobs of each status. Here it stops at 2."""
    monkeypatch.setattr(cli_jobs, "COUNTED", 2)
    for status in [Status.PENDING] * waiting + [Status.RUNNING] * running:
        await submit(probes.echo, "x", status=status)
    wanted, found = await cli_jobs._found(session, cli_jobs.CANCEL, JobFilter())
    changed = await cli_jobs._in_batches(session, cli_jobs.CANCEL, wanted, 0)
    cli_jobs._report(changed, cli_jobs.CANCEL, as_json=False)
    left = f"; {said} such jobs are left" * bool(said)
    assert (str(found), capsys.readouterr().out) == (said or "0", f"cancelled 0 jobs{left}\n")


async def test_an_id_that_is_given_twice_is_one_job() -> None:
    one, other = [str(await submit(probes.echo, "x")) for _ in range(2)]
    changed = as_json("cancel", one, other, one)["data"]
    assert changed == {"found": 2, "changed": 2, "left": 0}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["replay", "--error", "", "--yes"], "'--error': it is empty, which any error has"),
        (["cancel", "--key", "\udcff", "--yes"], "the command is not in UTF-8"),
    ],
    ids=["empty", "no text"],
)
async def test_a_filter_that_says_nothing_changes_nothing(arguments: list[str], line: str) -> None:
    """The second is a byte that is no UTF-8."""
    waits, dead = await submit(probes.echo, "x"), await submit(probes.echo, "x", **DEAD)
    assert line in command(*arguments, code=2).splitlines()[-1]
    assert await statuses(waits, dead) == [Status.PENDING, Status.DEAD]


def test_nobody_can_be_asked_without_a_standard_input() -> None:
    submit_beside()
    closed = ["sh", "-c", 'exec "$0" "$@" <&-', JOBS, "cancel", "--all"]
    done = subprocess.run(closed, cwd=ROOT, capture_output=True, text=True)
    asked = "1 job is to be cancelled. Go on? Nobody can be asked here, nothing was changed"
    assert (done.returncode, done.stderr) == (2, f"{asked}: add --yes\n")


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
