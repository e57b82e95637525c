"""What runs when, and what operators can do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import HTTPException, Path, status
from fastapi.exceptions import RequestValidationError

from app.api.errors import answers
from app.api.routing import PageLimit, Router
from app.dependencies import OPERATORS, ScheduleServiceDep
from app.jobs.backends import ID_PATTERN
from app.schemas.jobs import JobAccepted
from app.schemas.response import ApiResponse, Page
from app.schemas.schedules import ScheduleChange, ScheduleCreate, ScheduleOut
from app.services.schedules import (
    InvalidScheduleError,
    ScheduleConflictError,
    ScheduleNotFoundError,
)

router = Router(
    prefix="/schedules",
    tags=["schedules"],
    dependencies=OPERATORS,
    responses=answers(401, 503),
)

Id = Annotated[str, Path(pattern=ID_PATTERN)]


@contextmanager
def refusals() -> Iterator[None]:
    """What the service refuses, as HTTP says it."""
    try:
        yield
    except ScheduleNotFoundError:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "no such schedule") from None
    except ScheduleConflictError as error:
        raise HTTPException(status.HTTP_409_CONFLICT, str(error)) from None
    except InvalidScheduleError as error:
        raise RequestValidationError(error.errors) from None


@router.get("", responses=answers(422))
async def list_schedules(
    service: ScheduleServiceDep, limit: PageLimit = 100, after: str | None = None
) -> Page[ScheduleOut]:
    """In the order of their ids."""
    found = await service.find(limit + 1, after=after)
    data = [ScheduleOut.of(row) for row in found[:limit]]
    return Page(data=data, next=found[limit - 1].id if len(found) > limit else None)


@router.get("/{schedule_id}", responses=answers(404, 422))
async def get_schedule(schedule_id: Id, service: ScheduleServiceDep) -> ApiResponse[ScheduleOut]:
    with refusals():
        return ApiResponse(data=ScheduleOut.of(await service.get(schedule_id)))


@router.post("", status_code=status.HTTP_201_CREATED, responses=answers(409, 413, 422))
async def create_schedule(
    wanted: ScheduleCreate, service: ScheduleServiceDep
) -> ApiResponse[ScheduleOut]:
    with refusals():
        return ApiResponse(data=ScheduleOut.of(await service.create(wanted)))


@router.patch("/{schedule_id}", responses=answers(404, 409, 413, 422))
async def change_schedule(
    schedule_id: Id, change: ScheduleChange, service: ScheduleServiceDep
) -> ApiResponse[ScheduleOut]:
    """Change, pause or resume; at the next deploy code that changed the schedule has its way."""
    with refusals():
        return ApiResponse(data=ScheduleOut.of(await service.change(schedule_id, change)))


@router.delete(
    "/{schedule_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=answers(404, 409, 422),
)
async def delete_schedule(schedule_id: Id, service: ScheduleServiceDep) -> None:
    with refusals():
        await service.delete(schedule_id)


@router.post(
    "/{schedule_id}/run",
    status_code=status.HTTP_202_ACCEPTED,
    responses=answers(404, 409, 422),
)
async def run_schedule(schedule_id: Id, service: ScheduleServiceDep) -> ApiResponse[JobAccepted]:
    """Submit a job of this schedule now, paused or not; its ticks stay as they are."""
    with refusals():
        job = await service.run(schedule_id)
    return ApiResponse(data=JobAccepted(job_id=job.id))
