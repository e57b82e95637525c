"""Each process serves its counts under the same names, whichever back end runs its jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy import insert

from app.jobs.table import db_time, jobs
from devtools.commands import COMMANDS
from tests.engine import probes
from tests.engine.scrapes import (
    QUEUE_OF,
    QUEUES,
    Scrape,
    Scraped,
    counted,
    listening,
    scrape,
    scraped_service,
)
from tests.service import START_LIMIT, eventually

# Every process has these. For a histogram one of its samples is named.
COUNTED = {
    "jobs_tries_total": {"task"},
    "jobs_outcomes_total": {"task", "outcome"},
    "jobs_leases_lost_total": {"task"},
    "jobs_bells_failed_total": {"backend"},
    "schedules_ticks_late_total": set[str](),
    "schedules_missed_total": set[str](),
    "jobs_loop_stalled_seconds": {"loop"},
}
OF_TRIES = {
    "jobs_duration_seconds_count": {"task", "outcome"},
    "jobs_start_delay_seconds_count": {"task"},
}
OF_THE_DATABASE = {
    "jobs_database_up": set[str](),
    "jobs_waiting": {"queue"},
    "jobs_oldest_waiting_seconds": {"queue"},
    "jobs_running": {"queue"},
    "jobs_dead": {"queue"},
    "jobs_queue_paused": {"queue"},
    "jobs_queue_processes": {"queue"},
    "schedules_overdue_seconds": set[str](),
}
EXPECTED = {"succeeded": 2, "failed": 1, "dead": 1}


@pytest.fixture(scope="module")
async def scraped(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scraped]:
    async with scraped_service(tmp_path_factory.mktemp("scraped")) as service:
        yield service


def names_in(found: Scrape, expected: dict[str, set[str]]) -> dict[str, set[str]]:
    """The names and labels of the engine's samples, expected and unexpected ones."""
    engines = {name for name, _ in found.samples if name.startswith(("jobs_", "schedules_"))}
    shown = {name for name in engines if not name.endswith(("_bucket", "_sum", "_count"))}
    return {name: {*found.labels(name)[0]} for name in (shown | set(expected)) & engines}


async def test_each_process_that_runs_jobs_counts_each_try_once(scraped: Scraped) -> None:
    for host, queue in QUEUE_OF.items():
        succeeds = [
            await scraped.submit(probes.echo, "a", queue=queue),
            await scraped.submit(probes.flaky, 1, queue=queue),
        ]
        dies = await scraped.submit(probes.hopeless, queue=queue)
        for job_id in succeeds:
            await scraped.job_is(job_id, "succeeded")
        await scraped.job_is(dies, "dead")
        port = scraped.metrics[host]
        await counted(port, 1, "jobs_outcomes_total", task="probes.hopeless", outcome="dead")
        await counted(port, 1, "jobs_outcomes_total", task="probes.flaky", outcome="succeeded")
        await counted(port, 1, "jobs_outcomes_total", task="probes.echo", outcome="succeeded")
        found = await scrape(port)
        for outcome, count in EXPECTED.items():
            of_probes = {
                labels["task"]: found.value("jobs_outcomes_total", **labels)
                for labels in found.labels("jobs_outcomes_total")
                if labels["outcome"] == outcome and labels["task"].startswith("probes.")
            }
            assert sum(of_probes.values()) == count, (host, outcome, of_probes)
        assert found.value("jobs_tries_total", task="probes.flaky") == 2
        assert found.value("jobs_start_delay_seconds_count", task="probes.flaky") == 2
        assert found.value("jobs_duration_seconds_count", task="probes.echo", outcome="dead") == 0
        timed = {"task": "probes.hopeless", "outcome": "dead"}
        assert found.value("jobs_duration_seconds_count", **timed) == 1
        expected = COUNTED | OF_TRIES | (OF_THE_DATABASE if host == "api" else {})
        assert names_in(found, expected) == expected


async def test_other_processes_have_the_same_names(scraped: Scraped) -> None:
    for name, port in scraped.metrics.items():
        expected = COUNTED | (OF_THE_DATABASE if name == "api" else {})
        if name not in QUEUE_OF and name != "api":
            assert names_in(await scrape(port), expected) == expected, name
    found = await scrape(scraped.metrics["api"])
    assert set(OF_THE_DATABASE) <= {name for name, _ in found.samples}


async def test_the_api_tells_what_the_database_says(scraped: Scraped) -> None:
    row = {"task": "nobody's", "max_attempts": 1, "created_at": db_time(0), "run_at": db_time(-60)}
    dead = {"status": "dead", "finished_at": db_time(0)}
    async with scraped.session() as session:
        for queue in ("one", "two"):
            await session.execute(insert(jobs).values(row | {"id": uuid4(), "queue": queue}))
        gone = row | dead | {"id": uuid4(), "queue": "default"}
        await session.execute(insert(jobs).values(gone))
        await session.commit()
    port = scraped.metrics["api"]
    await counted(port, 2, "jobs_waiting", queue="other")
    found = await scrape(port)
    assert found.value("jobs_database_up") == 1
    assert found.value("jobs_oldest_waiting_seconds", queue="other") >= 60
    assert found.value("jobs_dead", queue="default") >= 1
    labels = {label["queue"] for label in found.labels("jobs_waiting")}
    assert labels == {*QUEUES, "other"}
    for queue in QUEUES:
        await counted(port, 1, "jobs_queue_processes", queue=queue)
    assert found.value("jobs_queue_processes", queue="other") == 0


async def gives_a_sign(service: Scraped, name: str) -> None:
    """Wait until an API listens, or another process has touched a file."""

    async def found() -> bool:
        if name in service.ports:
            return bool(listening(service.processes[name].pid))
        return any(service.heartbeats(name).glob("*"))

    await eventually(found, START_LIMIT)


async def test_only_what_is_asked_for_is_opened(scraped: Scraped) -> None:
    """Without METRICS_PORT no port is opened, and with it a port that only this machine reaches.

    Without it the library isn't loaded either.
    """
    for name, port in scraped.metrics.items():
        await scrape(port)
        opened = listening(scraped.processes[name].pid)
        assert opened - {("127.0.0.1", scraped.ports.get(name, 0))} == {("127.0.0.1", port)}
    del scraped.env["METRICS_PORT"]
    scraped.env["PYTHONPROFILEIMPORTTIME"] = "1"  # Python lists in the log what it imports
    names = [f"{name}-2" for name in COMMANDS]
    scraped.start(*names)
    for name in names:
        await gives_a_sign(scraped, name)
        own = {("127.0.0.1", scraped.ports[name])} if name in scraped.ports else set()
        assert listening(scraped.processes[name].pid) == own
        log = scraped.log(name)
        assert "app.core.metrics" in log
        if " -A " not in COMMANDS[name.removesuffix("-2")]:  # it loads others' plug-ins, which do
            assert "prometheus_client" not in log, name
    scraped.stop(*names)
    del scraped.env["PYTHONPROFILEIMPORTTIME"]


async def test_a_port_in_use_is_logged_once_and_waited_for(scraped: Scraped) -> None:
    port = scraped.metrics["api"]
    scraped.env["METRICS_PORT"] = str(port)
    scraped.start("api-3")

    async def told() -> bool:
        return "metrics.not_served" in scraped.log("api-3")

    await eventually(told)
    scraped.stop("api")

    async def served() -> bool:
        return "metrics.served" in scraped.log("api-3")

    await eventually(served)
    await scrape(port)
    lines = [line for line in scraped.log("api-3").splitlines() if "metrics." in line]
    assert len(lines) == 2, lines
    assert str(port) in lines[0]
