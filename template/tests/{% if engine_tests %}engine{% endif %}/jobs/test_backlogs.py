"""Jobs that are claimed one by one get their turn beside a backlog of others, and of each other."""

from __future__ import annotations

from uuid import UUID

import pytest

from app.config import get_settings
from app.core.database import IS_SQLITE
from app.jobs import Status
from app.jobs.host import Host
from app.jobs.table import db_time
from tests.engine import probes
from tests.engine.jobs.rows import BACKEND, end, statuses, submit
from tests.engine.jobs.statements import statements

pytestmark = pytest.mark.usefixtures("no_other_jobs")

SUSPECT = get_settings().max_crashes - 1
LOOK = 2 if IS_SQLITE else 1  # statements
PENDING, RUNNING = Status.PENDING, Status.RUNNING


async def backlog(count: int, crashes: int = 0) -> list[UUID]:
    """Submit so many jobs that run until they are cancelled, each younger than the one before."""
    return [
        await submit(probes.work, 30, crashes=crashes, run_at=db_time(n - 60)) for n in range(count)
    ]


async def taken_in_turn(host: Host, count: int) -> list[UUID]:
    """Look so many times. At each look the only slot is free."""
    found = []
    for _ in range(count):
        await host._look()
        [job_id] = host._claims
        found.append(job_id)
        await end(host, job_id)
    return found


async def test_in_a_backlog_each_second_slot_is_for_jobs_that_are_claimed_one_by_one() -> None:
    """They start in the order of their age."""
    plain = await backlog(5)
    younger = await submit(probes.work, 30, crashes=1, run_at=db_time(-70))
    bounded = await submit(probes.alone, 30, run_at=db_time(-80))
    older = await submit(probes.work, 30, crashes=1, run_at=db_time(-90))
    order = [plain[0], older, plain[1], bounded, plain[2], younger, plain[3], plain[4]]
    assert await taken_in_turn(Host(BACKEND, 1), len(order)) == order


async def test_a_backlog_alone_costs_no_statement_more() -> None:
    host, plain = Host(BACKEND, 1), await backlog(4)
    for job_id in plain:
        with statements() as made:
            await host._look()
        assert (list(host._claims), len(made)) == ([job_id], LOOK)
        await end(host, job_id)


async def test_suspects_that_wait_hide_no_job_that_crashed_once() -> None:
    host, suspects = Host(BACKEND, 3), await backlog(9, SUSPECT)
    crashed = await submit(probes.work, 30, crashes=SUSPECT - 1)
    await host._look()
    await host._look()
    assert await statuses(*suspects, crashed) == [RUNNING, *[PENDING] * 8, RUNNING]
    await end(host, suspects[0], crashed)


async def test_a_crashed_job_that_waits_for_its_tasks_limit_hides_no_other() -> None:
    host, other = Host(BACKEND, 1), Host(BACKEND, 1)
    alone = await submit(probes.alone, 30)
    await host._look()
    waits = await submit(probes.alone, 30, crashes=1, run_at=db_time(-60))
    crashed = await submit(probes.work, 30, crashes=1)
    await other._look()
    assert await statuses(alone, waits, crashed) == [RUNNING, PENDING, RUNNING]
    await end(host, alone)
    await end(other, crashed)
