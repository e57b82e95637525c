"""What processes count has the right value: of queues, of tries and their times, of ticks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select, update

from app.jobs import Date
from app.jobs.table import db_time, jobs, known_tasks
from tests.engine import probes
from tests.engine.jobs.rows import database_now
from tests.engine.jobs.schedule_rows import HOUR, add, add_late
from tests.engine.scrapes import QUEUE_OF, QUEUES, Scraped, counted, scrape, scraped_service
from tests.service import eventually

GRACE = 60  # seconds


@pytest.fixture(scope="module")
async def scraped(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scraped]:
    folder = tmp_path_factory.mktemp("scraped")
    async with scraped_service(folder, UNKNOWN_TASK_GRACE=str(GRACE)) as service:
        yield service


async def test_what_runs_and_what_is_paused_is_told_by_queue(scraped: Scraped) -> None:
    held = {}
    for queue in QUEUE_OF.values():
        held[queue] = await scraped.submit(probes.work, 200, queue=queue)
        await scraped.job_is(held[queue], "running")
    paused, api = next(iter(QUEUES)), scraped.metrics["api"]
    await scraped.steer(f"/queues/{paused}/pause")
    await counted(api, 1, "jobs_queue_paused", queue=paused)
    found = await scrape(api)
    for queue in QUEUES:
        assert found.value("jobs_running", queue=queue) == (queue in held), queue
        assert found.value("jobs_queue_paused", queue=queue) == (queue == paused), queue
    await scraped.steer(f"/queues/{paused}/resume")
    for host, queue in QUEUE_OF.items():
        await scraped.steer(f"/jobs/{held[queue]}/cancel")
        cancelled = {"task": "probes.work", "outcome": "cancelled"}
        await counted(scraped.metrics[host], 1, "jobs_outcomes_total", **cancelled)


async def test_times_are_in_seconds(scraped: Scraped) -> None:
    """A job that has been due for two seconds works for a third of one."""
    delay, work = "jobs_start_delay_seconds", {"task": "probes.work"}
    for host, queue in QUEUE_OF.items():
        port = scraped.metrics[host]
        before, due = await scrape(port), datetime.now(UTC) - timedelta(seconds=2)
        await scraped.submit(probes.work, 0.33, queue=queue, at=due)
        await counted(port, before.value(f"{delay}_count", **work) + 1, f"{delay}_count", **work)
        after = await scrape(port)
        took = after.value("jobs_duration_seconds_sum", **work, outcome="succeeded")
        assert 0.3 <= took < 30
        assert 2 <= after.value(f"{delay}_sum", **work) - before.value(f"{delay}_sum", **work) < 60


async def test_a_try_that_loses_its_database_is_handed_back(scraped: Scraped) -> None:
    """It costs the task none of its tries, of which it has one."""
    for queue in QUEUE_OF.values():
        await scraped.submit(probes.disconnected, queue=queue)
    for host in QUEUE_OF:
        for outcome in ("handed_back", "succeeded"):
            counts = {"task": "probes.disconnected", "outcome": outcome}
            await counted(scraped.metrics[host], 1, "jobs_outcomes_total", **counts)


async def test_tasks_that_nobody_knows_share_a_label(scraped: Scraped) -> None:
    job_id, long_ago = await scraped.submit(probes.echo, "a", delay=HOUR), db_time(-GRACE - 1)
    async with scraped.session() as session:

        async def judged() -> bool:
            return (await session.execute(select(known_tasks.c.name))).first() is not None

        await eventually(judged)
        renamed = update(jobs).where(jobs.c.id == job_id)
        await session.execute(renamed.values(task="renamed", run_at=long_ago))
        await session.execute(insert(known_tasks).values(name="renamed", seen_at=long_ago))
        await session.commit()

    async def told() -> bool:
        return await scraped.total("jobs_outcomes_total", task="unknown", outcome="dead") == 1

    await eventually(told)
    for port in scraped.metrics.values():
        tasks = {labels["task"] for labels in (await scrape(port)).labels("jobs_outcomes_total")}
        assert ("unknown" in tasks, "renamed" in tasks) == (True, False)


async def test_late_and_missed_ticks_are_counted(scraped: Scraped) -> None:
    """One is submitted a minute late. The other one, due an hour ago, is too late to run."""
    async with scraped.session() as session:
        await add_late(session)
        await add(session, Date(await database_now() - HOUR), 2 * HOUR)

    async def told() -> bool:
        names = "schedules_ticks_late_total", "schedules_missed_total"
        return [await scraped.total(name) for name in names] == [1, 1]

    await eventually(told)
