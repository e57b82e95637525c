"""A job has its outcome, whatever its task does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from app.jobs.contract import Task
from app.jobs.runner import MAX_BACKOFF, next_delay
from app.jobs.running import Claim
from app.jobs.table import db_time, jobs
from app.tasks.notifications import send_email
from tests.engine import probes
from tests.engine.broker import Broker
from tests.engine.delivery import probes as delivered
from tests.engine.delivery.world import World

OUTCOMES: list[tuple[Task[..., Any, Any], tuple[Any, ...], str, int, str | None]] = [
    (probes.echo, ("a",), "succeeded", 1, None),
    (probes.echo_sync, ("a",), "succeeded", 1, None),
    (probes.flaky, (2,), "succeeded", 3, None),
    (probes.flaky, (9,), "dead", 3, "ConnectionError: try 3"),
    (probes.later, (), "succeeded", 2, None),
    (probes.hopeless, (), "dead", 1, "NonRetryable: secret reason"),
    (probes.slow, (9,), "dead", 1, "TimeoutError: ran longer than 0.3 s"),
    (probes.slow_sync, (1,), "dead", 1, "TimeoutError: ran longer than 0.3 s"),
    (probes.not_json, (), "dead", 1, "NonRetryable: the result is not JSON"),
    (delivered.speechless, (), "dead", 1, "SpeechlessError, which can't say what it is"),
    (delivered.unwritable, (), "dead", 1, "ValueError: ? and ?"),
]


async def test_each_outcome_has_its_status_its_attempts_and_its_error(healthy: World) -> None:
    ids = [await healthy.submit(task, *args) for task, args, *_ in OUTCOMES]
    for job_id, (task, _, status, attempts, error) in zip(ids, OUTCOMES, strict=True):
        row = await healthy.row_is(job_id, "succeeded", "dead")
        assert (row.status, row.attempts) == (status, attempts), task.name
        assert (row.error or "").startswith(error or ""), task.name
        assert (row.error is None) is (error is None), task.name


async def test_arguments_that_no_longer_fit_are_dead_with_what_is_wrong(healthy: World) -> None:
    job_id = await healthy.submit(probes.slow, 0, delay=timedelta(hours=1))
    await change(healthy, job_id, args={"minutes": 0}, run_at=db_time(0), wake_at=db_time(0))
    row = await healthy.row_is(job_id, "dead")
    assert (row.attempts, row.args) == (1, {"minutes": 0})
    assert "seconds" in row.error
    assert "minutes" in row.error


@pytest.fixture
async def talkative(
    backend: str, own_broker: Broker | None, tmp_path: Path
) -> AsyncIterator[World]:
    """A world in which each library logs all that it can."""
    world = World(tmp_path, backend, own_broker, LOG_LEVEL="DEBUG")
    await world.as_it_should_be()
    yield world
    await world.close()


async def test_no_log_shows_what_a_job_was_given(talkative: World) -> None:
    """Two jobs succeed, one fails, and the arguments of one no longer fit."""
    secret = uuid4().hex
    ids = [await talkative.submit(send_email, f"{secret}@example.com", secret)]
    ids.append(await talkative.submit(probes.echo_sync, secret))
    ids.append(await talkative.submit(probes.order_then_fail, secret))
    ids.append(await talkative.submit(probes.slow, 0, delay=timedelta(hours=1)))
    await change(
        talkative, ids[-1], args={"seconds": secret}, run_at=db_time(0), wake_at=db_time(0)
    )
    for job_id in ids:
        await talkative.row_is(job_id, "succeeded", "dead")
    logs = [talkative.log(name) for name in talkative.processes]
    assert any(str(ids[2]) in log for log in logs)
    assert any("email sent" in log for log in logs)
    assert not any(secret in log for log in logs)


async def test_a_dead_job_is_replayed_and_no_other_is(healthy: World) -> None:
    job_id = await healthy.submit(probes.flaky, 3)
    await healthy.row_is(job_id, "dead")
    replay = f"/jobs/{job_id}/replay"
    assert (await healthy.client.post(replay, headers=healthy.operator)).status_code == 200
    row = await healthy.row_is(job_id, "succeeded")
    assert (row.attempts, row.max_attempts) == (4, 6)
    assert (await healthy.client.post(replay, headers=healthy.operator)).status_code == 409


async def test_a_cancelled_job_has_no_effect(healthy: World) -> None:
    waiting = await healthy.submit(delivered.work, "waiting", 0, delay=timedelta(hours=1))
    running = await healthy.submit(delivered.work, "running", 60)
    await healthy.marked("running runs")
    for job_id in (waiting, running):
        cancel = f"/jobs/{job_id}/cancel"
        assert (await healthy.client.post(cancel, headers=healthy.operator)).status_code == 200
    # The slot is free again, because the host has stopped the job.
    ids = await healthy.submit_many(probes.work, [[0.1]] * 20)
    await healthy.all_are("succeeded", ids)
    await healthy.all_are("cancelled", [waiting, running])
    assert await healthy.effects("waiting") == await healthy.effects("running") == 0


def test_the_backoff_grows_has_jitter_and_is_capped() -> None:
    patient = replace(probes.echo, tries=99)

    def delays(attempt: int, uncounted: int = 0) -> set[float]:
        claim = Claim(uuid4(), patient, {}, attempt + uncounted, 99 + uncounted)
        return {next_delay(claim, ValueError()).total_seconds() for _ in range(200)}

    base = probes.echo.backoff.total_seconds()
    for attempt in (1, 2, 3):
        ceiling = base * 2 ** (attempt - 1)
        assert ceiling / 2 < max(delays(attempt)) <= ceiling
        assert min(delays(attempt)) < ceiling / 4
        assert max(delays(attempt, uncounted=50)) <= ceiling
    assert max(delays(99)) <= MAX_BACKOFF.total_seconds()


async def change(world: World, job_id: UUID, **values: Any) -> None:
    async with world.engine.begin() as connection:
        await connection.execute(update(jobs).where(jobs.c.id == job_id).values(values))
