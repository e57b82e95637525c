"""What operators change, while hosts and other operators change the same jobs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Executable, delete, event, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.control import control
from app.core.database import SyncSessionLocal
from app.jobs import JobFilter, Jobs, JobStateError, Status, finding, looks
from app.jobs.table import db_time, jobs
from tests.engine import probes
from tests.engine.core.waits import BLOCKED, WAIT, waiting
from tests.engine.jobs.rows import change, statuses, submit
from tests.service import eventually

pytestmark = pytest.mark.usefixtures("no_other_jobs")

RUNNING: dict[str, Any] = {"status": Status.RUNNING}
ENDED: dict[str, Any] = {"status": Status.SUCCEEDED, "finished_at": db_time(0), "wake_at": None}
DEAD: dict[str, Any] = ENDED | {"status": Status.DEAD}

Step = Callable[[Jobs, JobFilter], Coroutine[Any, Any, int]]


async def waits_or_is_done(change: asyncio.Task[int]) -> bool:
    """On SQLite a writer waits for its turn. On PostgreSQL the change skips a locked row."""
    frames = sys._current_frames().values()
    return change.done() or any(each.f_code.co_name == "await_turn" for each in frames)


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        (Jobs.cancel_some, RUNNING, Status.CANCELLED),
        (Jobs.replay_some, DEAD, Status.PENDING),
    ],
    ids=["cancel", "replay"],
)
async def test_a_job_that_has_succeeded_meanwhile_stays_so(
    session: AsyncSession, step: Step, before: dict[str, Any], after: Status
) -> None:
    """A host writes an outcome, or another operator's replay runs. Jobs beside it change."""
    one, beside = [await submit(probes.echo, "a", **before) for _ in range(2)]
    with SyncSessionLocal() as other:
        other.execute(update(jobs).where(jobs.c.id == one).values(ENDED))
        changing = asyncio.create_task(step(Jobs(session), JobFilter()))
        await eventually(lambda: waits_or_is_done(changing))
        other.commit()
    assert await changing == 1
    await session.commit()
    assert await statuses(one, beside) == [Status.SUCCEEDED, after]


@pytest.fixture
def slow_look(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A look waits for a lock when it has begun, and then sees what was there before."""
    begins = "SELECT found.* FROM free CROSS"
    waits = f"SELECT found.* FROM ({WAIT}) AS wait, free CROSS"
    assert begins in looks._POSTGRESQL
    monkeypatch.setattr(looks, "_POSTGRESQL", looks._POSTGRESQL.replace(begins, waits))
    looks._at_once.cache_clear()
    yield
    looks._at_once.cache_clear()


@pytest.mark.postgresql
@pytest.mark.usefixtures("slow_look")
async def test_a_job_that_is_put_off_while_a_host_looks_is_left_alone() -> None:
    """Another host has tried it, and its task raised RetryLater."""
    job_id = await submit(probes.echo, "a")
    wanted = looks.Wanted(["default"], [probes.echo.name], [])
    async with waiting() as outside:
        looking = asyncio.create_task(control(partial(looks.look, wanted=wanted, slots=1)))

        async def looks_now() -> bool:
            return bool(await outside.scalar(BLOCKED))

        await eventually(looks_now)
        await change(job_id, run_at=db_time(3600), attempts=1)
    assert (await looking).taken == []
    assert await statuses(job_id) == [Status.PENDING]


async def test_a_replay_that_is_refused_undoes_nothing_else(session: AsyncSession) -> None:
    """Its key has gone to another job meanwhile."""
    one, refused = await submit(probes.echo, "a", **DEAD), await submit(probes.echo, "a", **DEAD)
    await change(refused, key="taken")
    await submit(probes.echo, "a", key="taken", run_at=db_time(60))
    await Jobs(session).replay(one)
    with pytest.raises(JobStateError, match="another job has taken this job's key"):
        await Jobs(session).replay(refused)
    await session.commit()
    assert await statuses(one, refused) == [Status.PENDING, Status.DEAD]


@pytest.mark.parametrize("rows", ["go", "come"])
async def test_rows_that_come_and_go_beside_a_page_hide_and_repeat_no_job(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch, rows: str
) -> None:
    """They change when the page's first statement has ended."""
    monkeypatch.setattr(finding, "EXAMINED", 3)
    made = [await submit(probes.echo, "a", **DEAD, created_at=db_time(-n)) for n in range(8)]
    rare = made[4 if rows == "go" else 1]
    await change(rare, error="rare")
    first, last = jobs.c.id.in_(made[:3]), jobs.c.id.in_(made[5:])
    newer = update(jobs).where(last).values(created_at=db_time(60))
    beside: list[Executable] = [delete(jobs).where(first) if rows == "go" else newer]

    def once(connection: Connection, *_: object) -> None:
        if beside:
            connection.execute(beside.pop())

    engine = session.get_bind()
    event.listen(engine, "after_cursor_execute", once)
    page = await Jobs(session).find(JobFilter(error="rare"), 5)
    event.remove(engine, "after_cursor_execute", once)
    assert not beside
    found = [*page.jobs]
    while page.next:
        page = await Jobs(session).find(JobFilter(error="rare"), 5, after=page.next)
        found += page.jobs
    await session.rollback()
    assert [job.id for job in found] == [rare]
