"""How a job is doing, and what operators can do about it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query

from app.api.errors import answers
from app.api.routing import PageLimit, Router
from app.config import get_settings
from app.dependencies import OPERATORS, DBSession, IsOperator, JobsDep
from app.jobs import JobFilter, Status
from app.schemas.jobs import CURSOR_PATTERN, JobOut, QueueOut, cursor_of, place_of
from app.schemas.response import ApiResponse, Page

router = Router(tags=["jobs"])

CHANGE = answers(401, 404, 409, 422, 503)


@router.get("/jobs/{job_id}", responses=answers(404, 422, 503))
async def get_job(job_id: UUID, jobs: JobsDep, operator: IsOperator) -> ApiResponse[JobOut]:
    return ApiResponse(data=JobOut.of(await jobs.get(job_id), whole_error=operator))


@router.get("/jobs", dependencies=OPERATORS, responses=answers(401, 422, 503))
async def list_jobs(
    jobs: JobsDep,
    status: Status = Status.DEAD,
    limit: PageLimit = 100,
    after: Annotated[str | None, Query(pattern=CURSOR_PATTERN)] = None,
) -> Page[JobOut]:
    """The newest first."""
    wanted = JobFilter(status=status)
    found = await jobs.find(wanted, limit, after=place_of(after) if after else None)
    data = [JobOut.of(job, whole_error=True) for job in found.jobs]
    return Page(data=data, next=found.next and cursor_of(found.next))


@router.post("/jobs/{job_id}/replay", dependencies=OPERATORS, responses=CHANGE)
async def replay_job(job_id: UUID, session: DBSession, jobs: JobsDep) -> ApiResponse[JobOut]:
    """Run a dead job again, with all its tries."""
    await jobs.replay(job_id)
    await session.commit()
    return ApiResponse(data=JobOut.of(await jobs.get(job_id), whole_error=True))


@router.post("/jobs/{job_id}/cancel", dependencies=OPERATORS, responses=CHANGE)
async def cancel_job(job_id: UUID, session: DBSession, jobs: JobsDep) -> ApiResponse[JobOut]:
    """End a job that waits or runs; what a running one has written is rolled back."""
    await jobs.cancel(job_id)
    await session.commit()
    return ApiResponse(data=JobOut.of(await jobs.get(job_id), whole_error=True))


@router.get("/queues", dependencies=OPERATORS, responses=answers(401, 503))
async def list_queues(jobs: JobsDep) -> ApiResponse[list[QueueOut]]:
    """What waits, since when the oldest does, and what is dead; queues nobody carries, too."""
    backends, now = get_settings().queues, datetime.now(UTC)
    shown = {name: QueueOut(queue=name, backend=backend) for name, backend in backends.items()}
    for found in await jobs.backlog():
        name = str(found.queue)
        out = shown.setdefault(name, QueueOut(queue=name, backend=None))
        out.waiting, out.dead = found.waiting, found.dead
        out.oldest_seconds = (now - found.oldest).total_seconds() if found.oldest else None
    return ApiResponse(data=list(shown.values()))
