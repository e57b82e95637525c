"""Which plans PostgreSQL keeps for the statements that come often."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.control import control
from app.core.drivers import renew_open_connections
from app.jobs import Jobs, claims
from app.jobs.looks import Wanted, look
from tests.engine import probes
from tests.engine.jobs.statements import plans_of

pytestmark = [pytest.mark.usefixtures("no_other_jobs"), pytest.mark.postgresql]

WANTED = Wanted(["default", "orders"], [probes.echo.name], [probes.alone.name])

STEPS: dict[str, Callable[[Connection, UUID], object]] = {
    "a look": lambda connection, _: look(connection, WANTED, 10),
    "a claim": lambda connection, job: claims.claim(connection, job, probes.echo.name, None),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
async def test_no_plan_for_a_small_table_is_kept_when_it_has_grown(
    session: AsyncSession, step: Callable[[Connection, UUID], object]
) -> None:
    """A connection keeps its plans. One for a small table would read each row of a large one."""
    counted = text("SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'jobs'")

    async def rows_read(job_id: UUID) -> int:
        def measured(connection: Connection) -> int:
            before = connection.scalar(counted)
            assert step(connection, job_id)
            return int(connection.scalar(counted) - before)

        return await control(measured, transaction=True)

    async def submit_many(count: int) -> list[UUID]:
        submitted = await Jobs(session).submit_many(probes.echo, [("a",)] * count)
        await session.commit()
        return [job.id for job in submitted]

    await control(lambda connection: connection.execute(text("TRUNCATE jobs")))
    few = await submit_many(20)
    await control(lambda connection: connection.execute(text("VACUUM ANALYZE jobs")))
    assert max([await rows_read(job_id) for job_id in few]) > 0
    first, *others = (await submit_many(20_000))[-21:]
    await rows_read(first)  # it finds that the table has grown
    assert {await rows_read(job_id) for job_id in others} == {0}


async def test_statistics_without_waiting_jobs_mislead_no_look(session: AsyncSession) -> None:
    """By them each index has one row. That of lists would be read whole for each queue and task."""
    many = [("a",)] * 3_000
    await Jobs(session).submit_many(probes.echo, many)
    await session.execute(text("DELETE FROM jobs"))
    await session.execute(text("ANALYZE jobs"))
    await Jobs(session).submit_many(probes.echo, many)
    await session.commit()
    [plan] = await plans_of(lambda connection: look(connection, WANTED, 10))
    assert "jobs_due" in plan
    assert "jobs_waiting" not in plan


async def test_a_look_is_not_planned_each_time() -> None:
    plans = text("""
        SELECT custom_plans, generic_plans FROM pg_prepared_statements
        WHERE statement LIKE '%carried AS%LIMIT 60%FROM next LEFT JOIN taken%'
    """)

    def looks(connection: Connection) -> tuple[int, int]:
        for slots in (10, 9, 1) * 10:
            look(connection, WANTED, slots)
        return connection.execute(plans).one()

    renew_open_connections()
    custom, generic = await control(looks)
    assert custom <= 5 < generic
