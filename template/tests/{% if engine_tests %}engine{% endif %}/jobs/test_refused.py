"""A job whose arguments the task doesn't take waits for another release, if it comes from one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row, delete, insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import get_settings
from app.jobs import Jobs, Status
from app.jobs.host import Host
from app.jobs.processes import SILENT
from app.jobs.runner import MAX_REFUSED_DELAY
from app.jobs.table import db_time, known_tasks
from tests.engine import probes
from tests.engine.jobs.rows import (
    BACKEND,
    change,
    database_now,
    idle,
    row_of,
    status_is,
    statuses,
    submit,
)
from tests.engine.jobs.schedule_rows import SECOND

pytestmark = pytest.mark.usefixtures("no_other_jobs")

GRACE = get_settings().unknown_task_grace


async def test_arguments_that_its_task_no_longer_takes_end_a_job(host: Host) -> None:
    job_id = await submit(probes.hopeless, args={"gone": 1}, max_attempts=9)
    host.ring()
    assert (await status_is(job_id, Status.DEAD)).error.startswith("ValidationError")


async def refuse(host: Host, job_id: UUID) -> Row[Any]:
    """Let the host take the job once, now; returns its row."""
    await change(job_id, run_at=db_time(0))
    await host._look()
    await idle(host)
    return await row_of(job_id)


@pytest.mark.parametrize("signature", ["of another", None], ids=["another", "that of 0.1.0"])
async def test_arguments_of_another_release_wait_for_it(signature: str | None) -> None:
    host = Host(BACKEND, 1)
    job_id = await submit(probes.slow, 0, args={"minutes": 0}, signature=signature)
    before = await database_now()
    row = await refuse(host, job_id)
    assert (row.status, row.error.partition(":")[0]) == (Status.PENDING, "ArgumentsRefused")
    assert (row.args, row.max_attempts - row.attempts) == ({"minutes": 0}, probes.slow.tries)
    first = row.refused_at
    assert before + SECOND <= row.run_at <= await database_now() + SECOND
    await change(job_id, refused_at=db_time(-9))
    row = await refuse(host, job_id)
    assert 9 <= (row.run_at - first).total_seconds() < 20, "it is tried less and less often"
    await change(job_id, refused_at=db_time(-900))
    row = await refuse(host, job_id)
    assert (row.run_at - await database_now()).total_seconds() <= MAX_REFUSED_DELAY
    await change(job_id, args={"seconds": 0})  # now this release takes them
    row = await refuse(host, job_id)
    assert (row.status, row.error) == (Status.SUCCEEDED, None)


async def know(session: AsyncSession, **ages: float) -> None:
    """Note how many seconds ago a process took which arguments."""
    for signature, age in ages.items():
        known = {"name": probes.hopeless.name, "signature": signature, "seen_at": db_time(-age)}
        await session.execute(insert(known_tasks).values(known))
    await session.commit()


async def test_arguments_that_nobody_takes_for_a_grace_end_a_job(session: AsyncSession) -> None:
    values: dict[str, Any] = {"args": {"gone": 1}, "refused_at": db_time(-GRACE - 1)}
    lost, kept, of_old = [
        await submit(probes.hopeless, **values, signature=each) for each in ("lost", "kept", None)
    ]
    await know(session, lost=GRACE + 60, kept=GRACE - 60, judged=0)
    host = Host(BACKEND, 4)
    await host._look()
    await idle(host)
    assert await statuses(lost, kept, of_old) == [Status.DEAD, Status.PENDING, Status.DEAD]
    row = await row_of(lost)
    assert row.error.startswith("ArgumentsRefused: ")
    assert "gone" in row.error


@pytest.mark.parametrize(("grace", "away"), [(GRACE, GRACE + 60), (0, 20)])
async def test_just_after_an_outage_arguments_wait_for_who_takes_them(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch, grace: float, away: float
) -> None:
    """No process could say that it lives. One that takes them may say so a moment later."""
    monkeypatch.setattr(get_settings(), "unknown_task_grace", grace)
    values: dict[str, Any] = {"args": {"gone": 1}, "refused_at": db_time(-away - 60)}
    job_id = await submit(probes.hopeless, **values, signature="another")
    if grace:
        unheard = await submit(probes.hopeless, **values, signature="unheard of")
        assert (await refuse(Host(BACKEND, 1), unheard)).status == Status.PENDING
    await know(session, another=away)
    assert (await refuse(Host(BACKEND, 1), job_id)).status == Status.PENDING
    await session.execute(delete(known_tasks))
    await know(session, another=grace + SILENT + 1, judged=0)
    assert (await refuse(Host(BACKEND, 1), job_id)).status == Status.DEAD


async def test_a_replay_has_a_grace_of_its_own(session: AsyncSession) -> None:
    dead: dict[str, Any] = {"status": Status.DEAD, "refused_at": db_time(-GRACE - 1)}
    job_id = await submit(probes.hopeless, args={"gone": 1}, signature="another", **dead)
    await Jobs(session).replay(job_id)
    await session.commit()
    assert (await refuse(Host(BACKEND, 1), job_id)).status == Status.PENDING
