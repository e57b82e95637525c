"""Each process, host or not, says regularly in a row of `processes` that it lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import get_settings
from app.core.database import AsyncSessionLocal
from app.jobs import Status
from app.jobs.contract import registry
from app.jobs.host import Host, hosting
from app.jobs.processes import FORGOTTEN, SAID_EVERY, Presence, end_unknown, present
from app.jobs.table import db_time, known_tasks, processes
from tests.engine import probes
from tests.engine.jobs.rows import BACKEND, database_now, statuses, submit
from tests.engine.jobs.statements import plans_of, statements
from tests.engine.jobs.watches import judging_watch
from tests.service import eventually

pytestmark = pytest.mark.usefixtures("no_other_jobs")


async def rows() -> Sequence[Row[Any]]:
    async with AsyncSessionLocal() as session:
        return (await session.execute(select(processes))).all()


async def test_a_host_says_where_it_is_and_what_it_knows(host: Host) -> None:
    (row,) = await eventually(rows)
    assert (row.host, row.pid, row.backend) == (socket.gethostname(), os.getpid(), BACKEND)
    carried = get_settings().queues.items()
    assert row.queues == sorted(queue for queue, name in carried if name == BACKEND)
    assert row.tasks == {task.name: task.signature for task in registry().values()}
    assert (row.slots, row.busy) == (4, 0)
    assert row.started_at <= row.seen_at <= await database_now()


async def test_it_says_so_again_with_one_statement_each_few_seconds() -> None:
    presence = Presence(BACKEND, slots=2, busy=lambda: 1)
    await presence.say()
    async with AsyncSessionLocal.begin() as session:
        await session.execute(update(processes).values(seen_at=db_time(-1)))
    (first,) = await rows()
    with statements() as made:
        await presence.say()
        presence._said -= SAID_EVERY
        await presence.say()
    assert len(made) == 1, made
    (again,) = await rows()
    assert again.seen_at > first.seen_at
    assert (again.id, again.started_at, again.busy) == (first.id, first.started_at, 1)


async def test_a_host_deletes_its_row_at_its_end() -> None:
    async with hosting(BACKEND):
        await eventually(rows)
    assert await rows() == []


async def test_a_process_without_a_host_has_a_row_of_its_own() -> None:
    async with present():
        (row,) = await eventually(rows)
        assert (row.backend, row.queues, row.slots) == (None, [], 0)
    async with hosting(BACKEND), present():
        assert [row.backend for row in await eventually(rows)] == [BACKEND]


async def test_rows_of_the_dead_go(session: AsyncSession) -> None:
    await Presence().say()
    dead = Presence("killed")
    await dead.say()
    aged = update(processes).where(processes.c.backend == "killed")
    await session.execute(aged.values(seen_at=db_time(-FORGOTTEN - 1)))
    await session.commit()
    await judging_watch().step()
    assert {row.backend for row in await rows()} == {None}


@pytest.mark.parametrize("tasks", [[], None, {"x" * 201: ""}, {"x": None}, {"\0": ""}])
async def test_an_odd_row_keeps_nobody_from_judging(session: AsyncSession, tasks: Any) -> None:
    """Another release may show its tasks otherwise, and a name may be too long to be noted."""
    row: dict[str, Any] = {"host": "odd", "pid": 1, "queues": [], "slots": 0, "busy": 0}
    row |= {"tasks": tasks, "started_at": db_time(0), "seen_at": db_time(0)}
    odd, dead = (insert(processes).values(id=uuid4(), **row) for _ in range(2))
    await session.execute(odd)
    await session.execute(dead.values(host="dead", tasks={}, seen_at=db_time(-FORGOTTEN - 1)))
    await session.commit()
    await judging_watch().step()
    assert set(await session.scalars(select(known_tasks.c.name))) == {*registry()}
    assert set(await session.scalars(select(processes.c.host))) == {socket.gethostname(), "odd"}


async def test_all_jobs_of_an_unknown_task_end_one_part_after_the_other(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.processes.BATCH", 2)
    await judging_watch().step()  # somebody has judged lately
    old = db_time(-get_settings().unknown_task_grace - 1)
    await session.execute(insert(known_tasks).values(name="gone.task", seen_at=old))
    await session.commit()
    ids = [await submit(probes.echo, "a", task="gone.task", run_at=old) for _ in range(5)]
    watch = judging_watch()
    for _ in range(3):
        await watch.step()
    assert {*await statuses(*ids)} == {Status.DEAD}


async def test_a_judgement_reads_no_job_that_waits_its_turn() -> None:
    """One step in the index finds a queue's task; jobs that crashed have an index of their own."""
    plan = "\n".join(await plans_of(end_unknown))
    assert "jobs_due" in plan
    assert "jobs_crashed" in plan
    assert "jobs_waiting" not in plan
    assert "Seq Scan on jobs" not in plan
