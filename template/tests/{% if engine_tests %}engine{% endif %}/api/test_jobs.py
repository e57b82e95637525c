from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.errors import install
from app.core.outages import AwayError
from app.core.security import NotAnOperatorError
from app.jobs import JobNotFoundError, Jobs, Status
from app.jobs.contract import Task
from app.jobs.table import db_time, jobs
from tests.engine import probes
from tests.service import Service, eventually

PUBLIC = {
    "GET /health/live",
    "GET /health/ready",
    "POST /orders",
    "GET /orders/{order_id}",
    "GET /jobs/{job_id}",
    "POST /notify",
}


@pytest.mark.parametrize("task", [probes.echo, probes.echo_sync])
async def test_a_new_file_in_tasks_is_found_by_every_process(
    service: Service, task: Task[..., Any, Any]
) -> None:
    """The probes are a new file in the service's `app/tasks/`. A script submits their jobs."""
    job = await service.job_is(await service.submit(task, "hello"), "succeeded")
    assert (job["task"], job["result"]) == (task.name, "hello")


async def test_the_job_is_in_every_line_that_it_logs(service: Service) -> None:
    job_id = await service.submit(probes.echo, "hello")
    await service.job_is(job_id, "succeeded")

    async def logged() -> list[str]:
        lines = "".join(service.log(name) for name in service.processes).splitlines()
        return [line for line in lines if "echoing" in line and str(job_id) in line]

    await eventually(logged)


async def test_a_failure_shows_its_class_to_everybody_and_its_text_to_operators(
    service: Service,
) -> None:
    job_id = await service.submit(probes.hopeless)
    job = await service.job_is(job_id, "dead")
    assert (job["error"], job["attempts"]) == ("NonRetryable: secret reason", 1)
    seen = await service.client.get(f"/jobs/{job_id}")
    assert seen.json()["data"]["error"] == "NonRetryable"
    assert seen.json()["data"]["run_at"] == job["run_at"]


async def test_whoever_waits_for_a_dead_job_learns_why_it_died(service: Service) -> None:
    job_id = await service.submit(probes.hopeless)
    with pytest.raises(AssertionError, match="is dead: NonRetryable: secret reason; logs are in "):
        await service.job_is(job_id, "succeeded")


async def test_a_failure_is_tried_again_after_its_backoff(service: Service) -> None:
    job = await service.job_is(await service.submit(probes.flaky, 2), "succeeded")
    assert (job["attempts"], job["result"]) == (3, 3)


async def test_a_dead_job_can_be_found_and_replayed(service: Service) -> None:
    job_id = str(await service.submit(probes.flaky, 3))
    await service.job_is(job_id, "dead")
    found = await service.client.get("/jobs", params={"status": "dead"}, headers=service.operator)
    assert job_id in {job["job_id"] for job in found.json()["data"]}
    replay = f"/jobs/{job_id}/replay"
    assert (await service.client.post(replay, headers=service.operator)).status_code == 200
    assert (await service.job_is(job_id, "succeeded"))["attempts"] == 4
    assert (await service.client.post(replay, headers=service.operator)).status_code == 409


@pytest.mark.usefixtures("no_other_jobs")
@pytest.mark.parametrize(
    ("length", "sizes"), [(100_000, [50, 50, 20]), (10, [120])], ids=["long", "short"]
)
async def test_a_page_of_long_results_ends_early(
    api: AsyncClient, session: AsyncSession, length: int, sizes: list[int]
) -> None:
    """A result may have 256 KiB: a thousand would take the API's memory and its time."""
    made = await Jobs(session).submit_many(probes.echo, [("x",)] * 120, delay=timedelta(hours=1))
    ended = {"status": Status.SUCCEEDED, "finished_at": db_time(0), "args": None}
    await session.execute(update(jobs).values(ended | {"result": "x" * length}))
    await session.commit()
    ids: list[str] = []
    after: dict[str, str] = {}
    for number, size in enumerate(sizes, 1):
        query = {"status": "succeeded", "limit": "1000", **after}
        answer = await api.get("/jobs", params=query, headers={"X-API-Key": os.environ["API_KEY"]})
        page = answer.json()
        assert (len(page["data"]), page["next"] is None) == (size, number == len(sizes))
        ids += [job["job_id"] for job in page["data"]]
        after = {"after": page["next"]}
    assert sorted(ids) == sorted(str(job.id) for job in made)


async def test_a_running_job_is_cancelled(service: Service) -> None:
    job_id = await service.submit(probes.work, 60)
    await service.job_is(job_id, "running")
    cancel = f"/jobs/{job_id}/cancel"
    answer = await service.client.post(cancel, headers=service.operator)
    assert answer.json()["data"]["status"] == "cancelled"
    assert (await service.client.post(cancel, headers=service.operator)).status_code == 409


async def test_an_unknown_job_is_404_and_a_malformed_id_422(service: Service) -> None:
    assert (await service.client.get(f"/jobs/{uuid4()}")).status_code == 404
    assert (await service.client.get("/jobs/1")).status_code == 422
    for action in ("replay", "cancel"):
        answer = await service.client.post(f"/jobs/{uuid4()}/{action}", headers=service.operator)
        assert answer.status_code == 404


class GreetingNotFoundError(JobNotFoundError): ...


class PrinterAwayError(AwayError): ...


@pytest.mark.parametrize(
    ("error", "code", "detail", "after"),
    [
        (GreetingNotFoundError(), 404, "no such job", None),
        (PrinterAwayError("the printer is away"), 503, "the printer is away", "5"),
        (NotAnOperatorError(), 401, "X-API-Key is missing or wrong", None),
    ],
)
async def test_an_error_of_a_kind_that_is_known_is_answered(
    error: Exception, code: int, detail: str, after: str | None
) -> None:
    """An owner may derive errors from these."""
    api = FastAPI()
    install(api)

    @api.get("/greetings")
    async def read() -> None:
        raise error

    async with AsyncClient(transport=ASGITransport(api), base_url="http://localhost") as client:
        answer = await client.get("/greetings")
    assert (answer.status_code, answer.json()) == (code, {"detail": detail})
    assert answer.headers.get("Retry-After") == after


async def test_queues_show_what_carries_them_and_what_is_dead(service: Service) -> None:
    await service.job_is(await service.submit(probes.hopeless), "dead")
    answer = await service.client.get("/queues", headers=service.operator)
    queues = {queue["queue"]: queue for queue in answer.json()["data"]}
    assert set(queues) >= {"default", "orders", "notifications", "maintenance", "workflows"}
    assert queues["default"]["dead"] >= 1
    assert all(queue["backend"] for queue in queues.values())


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, {"X-API-Key": ""}])
async def test_operator_routes_need_the_key(service: Service, headers: dict[str, str]) -> None:
    """Each operation that isn't named as a public one is for operators."""
    paths = (await service.client.get("/openapi.json")).json()["paths"]
    operations = {f"{name.upper()} {path}" for path, names in paths.items() for name in names}
    refused = set()
    for operation in operations:
        method, path = operation.split()
        url = re.sub(r"{\w+}", str(UUID(int=0)), path)
        if (await service.client.request(method, url, headers=headers)).status_code == 401:
            refused.add(operation)
    assert refused == operations - PUBLIC
    assert operations > PUBLIC
