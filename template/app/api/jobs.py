"""The state of jobs, and what operators can do with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Query
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.errors import answers
from app.api.routing import PageLimit, Router
from app.dependencies import OPERATORS, DBSession, IsOperator, JobsDep
from app.jobs import JobFilter, Jobs, Status
from app.schemas.jobs import (
    CURSOR_PATTERN,
    CancelSelection,
    ChangedOut,
    JobDetails,
    JobListed,
    JobOut,
    Moment,
    ReplaySelection,
    cursor_of,
    place_of,
)
from app.schemas.response import ApiResponse, Page

router = Router(tags=["jobs"])

CHANGE = answers(401, 404, 409, 503)
CHANGE_MANY = answers(401, 413, 503)
PART = 50  # jobs that are read at once
ENOUGH = 4_000_000  # characters of a page, after which no further part is read
BATCHES = 100  # of a thousand jobs each, that one request changes


@router.get("/jobs/{job_id}", responses=answers(404, 503))
async def get_job(
    job_id: UUID, jobs: JobsDep, operator: IsOperator
) -> ApiResponse[JobDetails | JobOut]:
    """Operators also see its arguments, its tries, and what submitted it."""
    job = await jobs.get(job_id)
    return ApiResponse(data=JobDetails.of(job) if operator else JobOut.of(job, whole_error=False))


@router.get("/jobs", dependencies=OPERATORS, responses=answers(401, 503))
async def list_jobs(
    jobs: JobsDep,
    status: Status | Literal["any"] = Status.DEAD,
    task: Annotated[str | None, Query(max_length=200)] = None,
    queue: Annotated[str | None, Query(max_length=100)] = None,
    key: Annotated[str | None, Query(max_length=300)] = None,
    since: Annotated[Moment | None, Query(description="created then or later")] = None,
    until: Annotated[Moment | None, Query(description="created before")] = None,
    error: Annotated[
        str | None, Query(min_length=1, max_length=1000, description="a part of its text")
    ] = None,
    limit: PageLimit = 100,
    after: Annotated[str | None, Query(pattern=CURSOR_PATTERN)] = None,
) -> Page[JobListed]:
    """The newest come first. A page may be short or empty although another one follows."""
    wanted = JobFilter(None if status == "any" else status, task, queue, key, since, until, error)
    return await _page(jobs, wanted, limit, place_of(after) if after else None)


async def _page(
    jobs: Jobs, wanted: JobFilter, limit: int, place: tuple[datetime, UUID] | None
) -> Page[JobListed]:
    """Read a page in parts. It ends early if it gets long, because a result may have 256 KiB."""
    data: list[JobListed] = []
    size = 0
    while size < ENOUGH:
        most = min(PART, limit - len(data))
        found = await jobs.find(wanted, most, after=place)
        part, place = [JobListed.of(job) for job in found.jobs], found.next
        data += part
        if place is None or len(part) < most or len(data) == limit:
            break
        size += sum(len(each.model_dump_json()) for each in part)
    return Page(data=data, next=cursor_of(place) if place else None)


@router.post("/jobs/replay", dependencies=OPERATORS, responses=CHANGE_MANY)
async def replay_jobs(
    selection: ReplaySelection, session: DBSession, jobs: JobsDep
) -> ApiResponse[ChangedOut]:
    """Run these dead jobs again, with all their tries.

    With `dry_run` it only counts. It stops after 100,000: ask again while `changed` is not 0.
    """
    wanted = await jobs.until_now(JobFilter(**selection.wanted))
    return await _changed(session, jobs, wanted.to_replay(), jobs.replay_some, selection.dry_run)


@router.post("/jobs/cancel", dependencies=OPERATORS, responses=CHANGE_MANY)
async def cancel_jobs(
    selection: CancelSelection, session: DBSession, jobs: JobsDep
) -> ApiResponse[ChangedOut]:
    """Cancel those of these jobs that wait or run.

    With `dry_run` it only counts. It stops after 100,000: ask again while `changed` is not 0.
    """
    wanted = await jobs.until_now(JobFilter(**selection.wanted))
    return await _changed(session, jobs, wanted.to_cancel(), jobs.cancel_some, selection.dry_run)


@router.post("/jobs/{job_id}/replay", dependencies=OPERATORS, responses=CHANGE)
async def replay_job(job_id: UUID, session: DBSession, jobs: JobsDep) -> ApiResponse[JobDetails]:
    """Run a dead job again, with all its tries."""
    await jobs.replay(job_id)
    await session.commit()
    return ApiResponse(data=JobDetails.of(await jobs.get(job_id)))


@router.post("/jobs/{job_id}/cancel", dependencies=OPERATORS, responses=CHANGE)
async def cancel_job(job_id: UUID, session: DBSession, jobs: JobsDep) -> ApiResponse[JobDetails]:
    """End a job that waits or runs. What a running one has written is rolled back."""
    await jobs.cancel(job_id)
    await session.commit()
    return ApiResponse(data=JobDetails.of(await jobs.get(job_id)))


async def _changed(
    session: AsyncSession,
    jobs: Jobs,
    wanted: Sequence[JobFilter],
    step: Callable[[JobFilter], Awaitable[int]],
    dry_run: bool,
) -> ApiResponse[ChangedOut]:
    """Change the jobs in batches, and commit each batch by itself."""
    found, changed = sum([await jobs.count(each) for each in wanted]), 0
    for each in wanted if not dry_run else ():
        for _ in range(BATCHES):
            number = await step(each)
            await session.commit()
            changed += number
            if not number:
                break
    left = sum([await jobs.count(each) for each in wanted]) if changed else found
    return ApiResponse(data=ChangedOut(found=found, changed=changed, left=left))
