"""Schedules, and what operators can do with them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, status

from app.api.errors import answers
from app.api.routing import PageLimit, Router
from app.dependencies import OPERATORS, DBSession, SchedulesDep
from app.schemas.jobs import JobAccepted
from app.schemas.response import ApiResponse, Page
from app.schemas.schedules import ScheduleChange, ScheduleCreate, ScheduleId, ScheduleOut

router = Router(
    prefix="/schedules", tags=["schedules"], dependencies=OPERATORS, responses=answers(401, 503)
)

Id = Annotated[ScheduleId, Path()]


@router.get("")
async def list_schedules(
    schedules: SchedulesDep, limit: PageLimit = 100, after: str | None = None
) -> Page[ScheduleOut]:
    """They come in the order of their ids."""
    found = await schedules.find(limit + 1, after=after)
    data = [ScheduleOut.of(each) for each in found[:limit]]
    return Page(data=data, next=found[limit - 1].id if len(found) > limit else None)


@router.get("/{schedule_id}", responses=answers(404))
async def get_schedule(schedule_id: Id, schedules: SchedulesDep) -> ApiResponse[ScheduleOut]:
    return ApiResponse(data=ScheduleOut.of(await schedules.get(schedule_id)))


@router.post("", status_code=status.HTTP_201_CREATED, responses=answers(409, 413))
async def create_schedule(
    wanted: ScheduleCreate, schedules: SchedulesDep, session: DBSession
) -> ApiResponse[ScheduleOut]:
    definition, paused = wanted.definition(), wanted.paused
    created = await schedules.create(wanted.id, wanted.task, definition, paused=paused)
    await session.commit()
    return ApiResponse(data=ScheduleOut.of(created))


@router.patch("/{schedule_id}", responses=answers(404, 409, 413))
async def change_schedule(
    schedule_id: Id, change: ScheduleChange, schedules: SchedulesDep, session: DBSession
) -> ApiResponse[ScheduleOut]:
    """Change, pause or resume. A deploy whose code changes the schedule undoes other changes."""
    changed = await schedules.change(
        schedule_id, change.revision, paused=change.paused, **change.definition()
    )
    await session.commit()
    return ApiResponse(data=ScheduleOut.of(changed))


@router.delete(
    "/{schedule_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=answers(404, 409),
)
async def delete_schedule(schedule_id: Id, schedules: SchedulesDep, session: DBSession) -> None:
    await schedules.delete(schedule_id)
    await session.commit()


@router.post(
    "/{schedule_id}/run",
    status_code=status.HTTP_202_ACCEPTED,
    responses=answers(404, 409),
)
async def run_schedule(
    schedule_id: Id, schedules: SchedulesDep, session: DBSession
) -> ApiResponse[JobAccepted]:
    """Submit a job of this schedule now, also if it is paused. Its ticks don't change."""
    job = await schedules.run(schedule_id)
    await session.commit()
    return ApiResponse(data=JobAccepted(job_id=job.id))
