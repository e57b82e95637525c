"""Lists come in pages. However many rows there are, no page omits or repeats one."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, String, cast, event, insert, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import IS_SQLITE
from app.jobs import Interval, JobFilter, Jobs, Schedule, Schedules, Status, finding
from app.jobs.schedules import definition_of
from app.jobs.table import db_time, jobs, schedules
from app.schemas.jobs import cursor_of, place_of
from tests.engine import probes
from tests.engine.api.schedule_calls import create
from tests.service import Service

MANY = 3000
HOURLY = Interval(hours=1)
LATER = timedelta(hours=1)
GOES_ON = re.compile(r"Index Cond: .*created_at|SEARCH jobs .*created_at")


async def pages(service: Service, path: str, **query: Any) -> AsyncIterator[list[dict[str, Any]]]:
    """The pages that a client gets which follows `next`."""
    after: dict[str, str] = {}
    while True:
        answer = await service.client.get(path, params=query | after, headers=service.operator)
        assert answer.status_code == 200, answer.text
        yield answer.json()["data"]
        if answer.json()["next"] is None:
            return
        after = {"after": answer.json()["next"]}


def still(schedule: dict[str, Any]) -> dict[str, Any]:
    """What no clock changes. One may wake, and what is late gets later."""
    moving = {"next_tick", "upcoming", "late", "last_tick", "last_job_id"}
    moving |= {"missed_since", "missed_until"}
    return {name: schedule[name] for name in schedule.keys() - moving}


async def test_schedules_come_in_pages(service: Service) -> None:
    """Some of the ids must be escaped in an address."""
    made = [await create(service, id=f"page é:{n} {uuid4()}", paused=True) for n in range(5)]
    whole = [page async for page in pages(service, "/schedules")]
    short = [page async for page in pages(service, "/schedules", limit=2)]
    assert len(whole) == 1
    assert [len(page) for page in short[:-1]] == [2] * (len(short) - 1)
    rows = [row for page in short for row in page]
    assert [still(row) for row in rows] == [still(row) for row in whole[0]]
    assert [row for row in whole[0] if row in made] == made


async def test_jobs_come_in_pages_while_others_are_made(service: Service) -> None:
    made = {str(await service.submit(probes.echo, "x", delay=LATER)) for _ in range(5)}
    seen: list[str] = []
    async for page in pages(service, "/jobs", status="pending", limit=2):
        assert len(page) <= 2
        seen += [job["job_id"] for job in page]
        await service.submit(probes.echo, "x", delay=LATER)
    assert len(seen) == len(set(seen))
    assert made <= set(seen)


@pytest.mark.usefixtures("no_other_jobs")
async def test_jobs_of_one_moment_come_in_pages(session: AsyncSession) -> None:
    made = await Jobs(session).submit_many(probes.echo, [("x",)] * 7, delay=LATER)
    waiting = JobFilter(status=Status.PENDING)
    page = await Jobs(session).find(waiting, 1)
    seen = [*page.jobs]
    while page.next:
        page = await Jobs(session).find(waiting, 2, after=place_of(cursor_of(page.next)))
        seen += page.jobs
    assert len({row.created_at for row in seen}) == 1
    assert sorted(row.id for row in seen) == sorted(job.id for job in made)
    await session.rollback()


async def test_the_newest_job_comes_first(service: Service) -> None:
    """Those of one task, because schedules submit jobs of others meanwhile."""
    made = [str(await service.submit(probes.echo_sync, "x", delay=LATER)) for _ in range(3)]
    only = {"status": "pending", "task": probes.echo_sync.name}
    listed = [job async for page in pages(service, "/jobs", **only) for job in page]
    assert [job["job_id"] for job in listed[:3]] == made[::-1]


@pytest.mark.parametrize("path", ["/jobs", "/schedules"])
async def test_a_page_has_a_limit(service: Service, path: str) -> None:
    wrong: list[dict[str, Any]] = [{"limit": 0}, {"limit": 1001}]
    wrong += [{"after": text} for text in ("x\0", "1-2")] if path == "/jobs" else []
    for query in wrong:
        answer = await service.client.get(path, params=query, headers=service.operator)
        [error] = answer.json()["detail"]
        assert (answer.status_code, error["loc"]) == (422, ["query", *query])


@pytest.fixture
async def plans(session: AsyncSession) -> AsyncIterator[list[str]]:
    """The database's plan for each SELECT of a session, and each WITH."""
    found: list[str] = []
    explain = "EXPLAIN QUERY PLAN " if IS_SQLITE else "EXPLAIN "

    def note(connection: Connection, _: object, statement: str, values: Any, *__: object) -> None:
        if statement.startswith(("SELECT", "WITH")):
            plan = connection.exec_driver_sql(explain + statement, values).all()
            found.append("\n".join(str(line) for line in plan))

    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("status", [Status.PENDING, Status.SUCCEEDED, Status.DEAD])
@pytest.mark.usefixtures("no_other_jobs")
async def test_no_page_of_jobs_looks_at_the_others(
    session: AsyncSession, plans: list[str], status: Status
) -> None:
    """A page neither reads nor sorts all jobs, so it is as quick among a million."""
    await Jobs(session).submit_many(probes.echo, [("x",)] * MANY, delay=LATER)
    ended = {"status": status, "finished_at": db_time(0)} if status != Status.PENDING else {}
    await session.execute(update(jobs).values({"args": None} | ended))
    await analyze(session)
    page = await Jobs(session).find(JobFilter(status=status), 10)
    await Jobs(session).find(JobFilter(status=status), 10, after=page.next)
    await session.rollback()
    assert_walks(plans, "jobs_waiting" if status == Status.PENDING else "jobs_ended")


@pytest.mark.usefixtures("no_other_jobs")
async def test_a_page_that_compares_rows_reads_them_by_their_index(
    session: AsyncSession, plans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a page is one statement, too."""
    monkeypatch.setattr(finding, "EXAMINED", 100)
    await Jobs(session).submit_many(probes.echo, [("x",)] * MANY, delay=LATER)
    ended = {"status": Status.DEAD, "finished_at": db_time(0), "error": "often"}
    await session.execute(update(jobs).values(ended))
    await analyze(session)
    wanted = JobFilter(status=Status.DEAD, error="rare")
    page = await Jobs(session).find(wanted, 10)
    await Jobs(session).find(wanted, 10, after=page.next)
    await session.rollback()
    first, second = plans
    for plan in plans:
        assert "jobs_ended" in plan
        assert not re.search(r"Seq Scan on jobs|SCAN jobs(?! USING INDEX)", plan), plan
    assert (GOES_ON.search(first), bool(GOES_ON.search(second))) == (None, True)


@pytest.mark.usefixtures("no_other_jobs")
async def test_no_batch_of_a_replay_looks_at_those_before(
    session: AsyncSession, plans: list[str]
) -> None:
    """Each batch goes on where the last one ended, even if few of the jobs match."""
    made = await Jobs(session).submit_many(probes.echo, [("x",)] * MANY)
    ended = {"status": Status.DEAD, "finished_at": db_time(0), "error": "often"}
    await session.execute(update(jobs).values(ended))
    few = jobs.c.id.in_([job.id for job in made[:5]])
    await session.execute(update(jobs).where(few).values(error="rare"))
    await analyze(session)
    operations = Jobs(session)
    assert [await operations.replay_some(JobFilter(error="rare"), 2) for _ in range(2)] == [2, 2]
    await session.rollback()
    first, second = plans[-2:]
    assert (GOES_ON.search(first), bool(GOES_ON.search(second))) == (None, True)


@pytest.mark.usefixtures("no_other_jobs")
async def test_no_batch_of_a_prune_looks_at_kept_jobs_again(
    session: AsyncSession, plans: list[str]
) -> None:
    made = await Jobs(session).submit_many(probes.echo, [("x",)] * MANY)
    then = db_time(-3600)
    ended = {"status": Status.SUCCEEDED, "created_at": then, "finished_at": then}
    kept = {"key": cast(jobs.c.id, String), "keep_key": True}
    await session.execute(update(jobs).values(ended | kept))
    few = jobs.c.id.in_([job.id for job in made[:5]])
    await session.execute(update(jobs).where(few).values(key=None))
    await analyze(session)
    operations = Jobs(session)
    age = timedelta(minutes=1)
    assert [await operations.prune(age, 2) for _ in range(4)] == [2, 2, 1, 0]
    await session.rollback()
    first, second = plans[1], plans[3]  # each batch first looks for jobs that were cancelled
    assert "jobs_ended" in second
    begins_later = re.compile(r"created_at[^<=\n]*>")  # both end before those that ended lately
    assert (begins_later.search(first), bool(begins_later.search(second))) == (None, True)


@pytest.mark.usefixtures("no_other_jobs")
async def test_no_count_of_queues_looks_at_all_rows(
    session: AsyncSession, plans: list[str]
) -> None:
    """Jobs that wait for later or have ended aren't read. PostgreSQL reads small tables whole."""
    await Jobs(session).submit_many(probes.echo, [("x",)] * MANY, delay=LATER)
    await Jobs(session).submit_many(probes.echo_sync, [("x",)] * MANY)
    await analyze(session)
    if not IS_SQLITE:
        await session.execute(text("SET LOCAL enable_seqscan = off"))
    await Jobs(session).queues()
    await session.rollback()
    steps = [step for plan in plans for step in plan.splitlines()]
    walks = [step for step in steps if re.search(r"SCAN jobs|Seq Scan on jobs", step)]
    few = re.compile("jobs_(due|crashed|running|dead)")
    assert [step for step in walks if not few.search(step)] == []
    assert any("jobs_due" in step for step in steps)
    assert not any("jobs_waiting" in step or "jobs_ended" in step for step in steps)


async def test_no_page_of_schedules_looks_at_the_others(
    session: AsyncSession, plans: list[str]
) -> None:
    definition = definition_of(Schedule("x", HOURLY, probes.echo, args=("x",)))
    row = {"definition": definition, "task": "probes.echo", "paused": True}
    await session.execute(insert(schedules), [row | {"id": f"many {n}"} for n in range(MANY)])
    await analyze(session)
    service = Schedules(session)
    await service.find(10)
    await service.find(10, after="many 5")
    await session.rollback()
    assert_walks(plans, "sqlite_autoindex_schedules_1" if IS_SQLITE else "schedules_pkey")


async def analyze(session: AsyncSession) -> None:
    """Update PostgreSQL's statistics, which it does by itself later."""
    if not IS_SQLITE:
        await session.execute(text("ANALYZE jobs, schedules"))


def assert_walks(plans: list[str], index: str) -> None:
    assert len(plans) == 2
    for plan in plans:
        assert index in plan
        assert not any(word in plan for word in ("Sort", "TEMP B-TREE", "Seq Scan")), plan
