"""Operators' REST routes for many jobs at once, for queues and for processes."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from httpx import AsyncClient
from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.table import db_time, queues
from tests.engine import probes
from tests.engine.processes import family
from tests.service import Service, eventually

OPERATOR = {"X-API-Key": os.environ["API_KEY"]}
LATER = timedelta(hours=1)
EVERY_FIELD = {"args", "tries", "origin", "worker", "queue", "key", "max_attempts"}


async def ask(service: Service, method: str, path: str, status: int = 200, **sent: Any) -> Any:
    answer = await service.client.request(method, path, headers=service.operator, **sent)
    assert answer.status_code == status, answer.text
    return answer.json().get("data", answer.json().get("detail"))


async def found(service: Service, **query: Any) -> set[str]:
    listed = await ask(service, "GET", "/jobs", params=query)
    return {job["job_id"] for job in listed}


async def test_only_operators_see_arguments_tries_and_origin(service: Service) -> None:
    job_id = await service.submit(probes.hopeless)
    job = await service.job_is(job_id, "dead")
    [tried] = job["tries"]
    assert (tried["number"], tried["error"]) == (1, "NonRetryable: secret reason")
    started, ended = (datetime.fromisoformat(tried[name]) for name in ("started_at", "ended_at"))
    assert started < ended == datetime.fromisoformat(job["finished_at"])
    assert tried["worker"] == job["worker"]
    assert int(job["worker"].rpartition(":")[2]) != os.getpid()
    assert (job["args"], job["origin"]) == ({}, {})
    public = (await service.client.get(f"/jobs/{job_id}")).json()["data"]
    assert job.keys() - public.keys() == EVERY_FIELD


async def test_each_try_is_shown(service: Service) -> None:
    job = await service.job_is(await service.submit(probes.flaky, 2), "succeeded")
    errors = [tried["error"] for tried in job["tries"]]
    assert errors == ["ConnectionError: try 1", "ConnectionError: try 2", None]


async def test_jobs_are_found_by_all_that_a_filter_has(service: Service) -> None:
    one = str(await service.submit(probes.echo, "x", key="found by key", delay=LATER))
    other = str(await service.submit(probes.echo, "x", key="another key", delay=LATER))
    made = (await service.job(one))["created_at"]
    matching: list[dict[str, Any]] = [
        {"task": "probes.echo"},
        {"queue": "default"},
        {"key": "found by key"},
        {"since": made},
    ]
    for query in matching:
        assert one in await found(service, status="any", **query)
    assert await found(service, status="any", key="found by key", task="probes.echo") == {one}
    assert other in await found(service, status="pending", since=made)
    assert one not in await found(service, status="pending", until=made)
    assert await found(service, status="any", key="found by key", error="x") == set()
    assert await found(service, key="found by key") == set()  # by default only dead jobs are found


async def test_many_dead_jobs_are_replayed(service: Service) -> None:
    """A dry run counts them first. A job whose key another job has stays dead."""
    dead = [await service.submit(probes.hopeless, key=f"bulk {n}") for n in range(3)]
    for job_id in dead:
        await service.job_is(job_id, "dead")
    taken = await service.submit(probes.hopeless, key="bulk 0", delay=LATER)
    selection = {"task": "probes.hopeless", "error": "SECRET", "since": "2020-01-01T00:00:00Z"}
    count = await ask(service, "POST", "/jobs/replay", json=selection | {"dry_run": True})
    assert (count["changed"], count["left"]) == (0, count["found"])
    changed = await ask(service, "POST", "/jobs/replay", json=selection)
    assert changed["found"] == count["found"] >= 3
    assert changed["changed"] < count["found"]
    for job_id in dead[1:]:
        again = await service.job_is(job_id, "dead")

        async def tried_again(job_id: Any = job_id) -> bool:
            return bool((await service.job(str(job_id)))["attempts"] == 2)

        await eventually(tried_again)
        assert again["tries"][0]["number"] == 1
    assert (await service.job(str(dead[0])))["attempts"] == 1
    await ask(service, "POST", f"/jobs/{taken}/cancel")


async def test_many_jobs_are_cancelled(service: Service) -> None:
    waiting = [await service.submit(probes.echo, "x", key=f"c{n}", delay=LATER) for n in range(2)]
    selection = {"key": "c0", "status": "pending"}
    changed = await ask(service, "POST", "/jobs/cancel", json=selection)
    assert changed == {"found": 1, "changed": 1, "left": 0}
    statuses = [(await service.job(str(job_id)))["status"] for job_id in waiting]
    assert statuses == ["cancelled", "pending"]
    assert (await ask(service, "POST", "/jobs/cancel", json={"key": "c1"}))["changed"] == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("replay", {}),
        ("replay", {"dry_run": True}),
        ("replay", {"status": "pending"}),
        ("replay", {"tsak": "probes.echo"}),
        ("cancel", {}),
        ("cancel", {"status": "dead"}),
        ("cancel", {"since": "2026-01-01T00:00:00"}),
        ("cancel", {"error": ""}),
    ],
)
async def test_a_selection_that_says_nothing_or_what_can_not_be_is_refused(
    service: Service, path: str, body: dict[str, Any]
) -> None:
    await ask(service, "POST", f"/jobs/{path}", 422, json=body)


async def queue_of(service: Service, name: str) -> Any:
    [queue] = [each for each in await ask(service, "GET", "/queues") if each["queue"] == name]
    return queue


async def test_a_queue_is_paused_and_resumed(service: Service) -> None:
    paused = await ask(service, "POST", "/queues/default/pause")
    assert paused["paused_at"] == (await queue_of(service, "default"))["paused_at"]
    assert paused["paused_at"] is not None
    waits = await service.submit(probes.echo, "waits", queue="default")
    other = await service.submit(probes.echo, "runs", queue="notifications")
    await service.job_is(other, "succeeded")
    assert (await service.job(str(waits)))["attempts"] == 0
    assert (await ask(service, "POST", "/queues/default/resume"))["paused_at"] is None
    await service.job_is(waits, "succeeded")


@pytest.mark.parametrize("change", ["pause", "resume"])
async def test_an_unknown_queue_can_not_be_paused(service: Service, change: str) -> None:
    assert await ask(service, "POST", f"/queues/no-such/{change}", 404) == "no such queue"


@pytest.mark.parametrize("name", ["gone", "gone/away"])
async def test_a_queue_that_only_its_pause_names_is_resumed(
    session: AsyncSession, api: AsyncClient, name: str
) -> None:
    """A release left it out of QUEUES while it was paused, and its jobs have been pruned."""
    await session.execute(insert(queues).values(name=name, paused_at=db_time(0)))
    await session.commit()
    resume = f"/queues/{quote(name, safe='')}/resume"
    answers = [await api.post(resume, headers=OPERATOR) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 404]
    data = answers[0].json()["data"]
    assert (data["queue"], data["paused_at"], data["waiting"]) == (name, None, 0)
    await session.execute(delete(queues).where(queues.c.name == name))
    await session.commit()


async def test_each_process_is_shown_and_which_queues_it_carries(service: Service) -> None:
    async def all_are_carried() -> list[Any] | None:
        queues = await ask(service, "GET", "/queues")
        return queues if all(each["processes"] for each in queues if each["backend"]) else None

    async def all_are_shown() -> list[Any] | None:
        shown = [each for each in await ask(service, "GET", "/processes") if each["alive"]]
        pids = {each["pid"] for each in shown}
        started = service.processes.values()
        families = [{member.pid for member in family(each.pid)} for each in started]
        return shown if all(pids & each for each in families) else None

    queues, shown = await eventually(all_are_carried), await eventually(all_are_shown)
    for queue in queues:
        carriers = [each for each in shown if queue["queue"] in each["queues"]]
        assert {each["backend"] for each in carriers} == {queue["backend"]}
        assert all(each["busy"] <= each["slots"] for each in carriers)
