"""Outcomes are written many at once, if the row still has the try. A refused one harms no other."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from app.core import drivers
from app.core.control import control
from app.core.database import IS_SQLITE, SyncSessionLocal, async_engine
from app.jobs import Jobs, Status
from app.jobs.outcomes import BATCH, Outcome, Outcomes, write_all
from app.jobs.table import db_time, jobs, known_tasks
from tests.engine import probes
from tests.engine.jobs.rows import change, database_now, row_of, status_is, submit
from tests.engine.jobs.statements import plans_of, statements
from tests.service import eventually

pytestmark = pytest.mark.usefixtures("no_other_jobs")

SUCCEEDED, PENDING, DEAD, RUNNING = (
    Status.SUCCEEDED,
    Status.PENDING,
    Status.DEAD,
    Status.RUNNING,
)


async def claimed(session: AsyncSession, count: int) -> list[UUID]:
    """Make so many jobs that run in their first try, and were due a minute ago."""
    many = await Jobs(session).submit_many(probes.echo, [("a",)] * count)
    running = {"status": RUNNING, "attempts": 1, "run_at": db_time(-60), "wake_at": db_time(60)}
    await session.execute(update(jobs).values(running))
    await session.commit()
    return [job.id for job in many]


async def write(*outcomes: Outcome) -> None:
    """Write outcomes as tries do that end at the same time."""
    writer = Outcomes(control)
    await asyncio.gather(*(writer.write(outcome) for outcome in outcomes))


async def results(*job_ids: UUID) -> list[tuple[str, Any]]:
    rows = [await row_of(job_id) for job_id in job_ids]
    return [(row.status, row.result) for row in rows]


@pytest.mark.postgresql
@pytest.mark.parametrize("count", [1, 2])
async def test_rows_are_found_by_their_ids(session: AsyncSession, count: int) -> None:
    """Beside an old transaction the index of running jobs is long, which the planner can't know."""
    await Jobs(session).submit_many(probes.echo, [("a",)] * 100)
    await session.execute(text("ANALYZE jobs"))
    await session.rollback()
    ended = [Outcome(each, 1, SUCCEEDED) for each in await claimed(session, count)]
    for plan in await plans_of(lambda connection: write_all(connection, ended)):
        assert "jobs_running" not in plan


async def test_outcomes_are_written_in_groups(session: AsyncSession) -> None:
    ids = await claimed(session, 2 * BATCH + 50)
    with statements() as made:
        await write(*(Outcome(each, 1, SUCCEEDED, result=n) for n, each in enumerate(ids)))
    assert [statement.strip()[:11] for statement, _ in made] == ["UPDATE jobs"] * 3
    found = await session.execute(select(jobs.c.id, jobs.c.result))
    assert {row.id: row.result for row in found} == {each: n for n, each in enumerate(ids)}


async def test_what_ends_during_a_write_is_written_with_the_next(session: AsyncSession) -> None:
    ids, writer = await claimed(session, 21), Outcomes(control)
    with statements() as made:
        first = asyncio.create_task(writer.write(Outcome(ids[0], 1, SUCCEEDED)))

        async def begun() -> bool:
            return len(made) == 1

        await eventually(begun)
        more = [writer.write(Outcome(each, 1, SUCCEEDED)) for each in ids[1:]]
        await asyncio.gather(first, *more)
    assert len(made) == 2
    assert await results(*ids) == [(SUCCEEDED, None)] * 21


@pytest.mark.parametrize("together", [1, 3])
async def test_each_kind_of_outcome(session: AsyncSession, together: int) -> None:
    """Outcomes alone and in a group are written by different statements."""
    ids = await claimed(session, 4 * together)
    kinds = [ids[n * together : (n + 1) * together] for n in range(4)]
    before = await row_of(ids[0])
    for kind, values in zip(
        kinds,
        (
            {"status": SUCCEEDED, "result": {"é": [1, None]}, "keep_args": False},
            {"status": DEAD, "error": "RuntimeError: no"},
            {"status": PENDING, "error": "RuntimeError: not yet", "delay": 60.0},
            {"status": PENDING, "more": 1},
        ),
        strict=True,
    ):
        await write(*(Outcome(each, 1, **values) for each in kind))  # type: ignore[arg-type]
    succeeded, dead, retried, handed_back = [await row_of(kind[-1]) for kind in kinds]
    assert (succeeded.status, succeeded.result) == (SUCCEEDED, {"é": [1, None]})
    assert (succeeded.args, succeeded.error, succeeded.wake_at) == (None, None, None)
    assert (dead.status, dead.error, dead.args) == (DEAD, "RuntimeError: no", {"text": "a"})
    assert (dead.wake_at, dead.run_at) == (None, before.run_at)
    assert (retried.status, retried.error) == (PENDING, "RuntimeError: not yet")
    assert (retried.finished_at, retried.max_attempts) == (None, before.max_attempts)
    assert retried.run_at > await database_now()
    assert (handed_back.status, handed_back.error) == (PENDING, None)
    assert (handed_back.attempts, handed_back.max_attempts) == (1, before.max_attempts + 1)
    assert handed_back.run_at == before.run_at  # it keeps its place
    assert before.run_at < succeeded.finished_at <= dead.finished_at <= await database_now()


# The first two are refused by each database, a text with NUL and a result NaN by PostgreSQL alone.
REFUSED: list[dict[str, Any]] = [{"error": "\ud800"}, {"result": object()}]
REFUSED += [] if IS_SQLITE else [{"error": "\0"}, {"result": float("nan")}]


@pytest.mark.parametrize("refused", REFUSED, ids=str)
async def test_a_value_that_is_refused_makes_its_own_job_dead_and_no_other(
    session: AsyncSession, refused: dict[str, Any]
) -> None:
    ids = await claimed(session, 5)
    with capture_logs() as logs:
        await write(
            *(Outcome(each, 1, SUCCEEDED, result=1) for each in ids[:2]),
            Outcome(ids[2], 1, SUCCEEDED, **refused),
            *(Outcome(each, 1, SUCCEEDED, result=1) for each in ids[3:]),
        )
    assert await results(*ids[:2], *ids[3:]) == [(SUCCEEDED, 1)] * 4
    row = await row_of(ids[2])
    assert (row.status, row.result, row.args) == (DEAD, None, {"text": "a"})
    assert row.error.startswith("NonRetryable: the database refused the outcome")
    assert [line["event"] for line in logs] == ["outcome.refused"]


async def test_an_outcome_that_is_refused_twice_ends_no_writer(session: AsyncSession) -> None:
    """The outcome `dead` is refused as well, so the job keeps its lease until that ends."""
    first, second = await claimed(session, 2)
    writer = Outcomes(control)
    await writer.write(Outcome(first, 1, DEAD, error="\ud800"))
    await writer.write(Outcome(second, 1, SUCCEEDED))
    assert await results(first, second) == [(RUNNING, None), (SUCCEEDED, None)]


async def test_an_outcome_of_a_lost_claim_is_dropped_and_its_neighbours_are_written(
    session: AsyncSession,
) -> None:
    taken_over, cancelled, taken_back, first, second = ids = await claimed(session, 5)
    await change(taken_over, attempts=2)
    await change(cancelled, status=Status.CANCELLED)
    await change(taken_back, status=PENDING)
    await write(*(Outcome(each, 1, SUCCEEDED, result=1) for each in ids))
    assert await results(first, second) == [(SUCCEEDED, 1)] * 2
    assert await results(taken_over, cancelled, taken_back) == [
        (RUNNING, None),
        (Status.CANCELLED, None),
        (PENDING, None),
    ]


async def test_a_cancelled_wait_stops_no_write(session: AsyncSession) -> None:
    ids, writer = await claimed(session, 2), Outcomes(control)
    waits = [asyncio.create_task(writer.write(Outcome(each, 1, SUCCEEDED))) for each in ids]
    await asyncio.sleep(0)
    waits[0].cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    assert await results(*ids) == [(SUCCEEDED, None)] * 2


BLOCKED = text(
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock' AND query LIKE '%UPDATE jobs%'"
)


@pytest.mark.postgresql
async def test_a_database_that_went_away_is_waited_for(session: AsyncSession) -> None:
    """The connection ends in the middle of the write, which waits for another session's lock."""
    [job_id] = await claimed(session, 1)
    async with async_engine.connect() as other:
        await other.execute(text("LOCK TABLE jobs IN EXCLUSIVE MODE"))
        writing = asyncio.create_task(write(Outcome(job_id, 1, SUCCEEDED, result=1)))

        async def ended() -> bool:
            await session.rollback()  # a transaction sees the same activity again and again
            blocked = [await session.scalar(BLOCKED)]
            end = text("SELECT pg_terminate_backend(:pid, 5000)")
            return any([await session.scalar(end, {"pid": pid}) for pid in blocked if pid])

        await eventually(ended)
    await writing
    assert (await status_is(job_id, SUCCEEDED)).result == 1


async def test_a_job_that_was_never_claimed_gets_no_outcome() -> None:
    job_id = await submit(probes.echo, "a")
    await write(Outcome(job_id, 0, SUCCEEDED, result=1))
    assert await results(job_id) == [(PENDING, None)]


@pytest.mark.sqlite
async def test_an_outcome_waits_for_a_task_that_has_written(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is in the same process, and works on for longer than others wait for their turn."""
    [job_id] = await claimed(session, 1)
    monkeypatch.setattr(drivers, "PATIENCE", 0.1)
    with capture_logs() as logs, SyncSessionLocal() as writing:
        writing.execute(insert(known_tasks).values(name="outcomes.writes", seen_at=db_time(0)))
        ended = asyncio.create_task(write(Outcome(job_id, 1, SUCCEEDED)))

        async def is_told() -> bool:
            return len(logs) > 0

        await eventually(is_told)
        writing.rollback()
        await ended
    assert {line["event"] for line in logs} == {"outcomes.delayed"}
    assert await results(job_id) == [(SUCCEEDED, None)]
