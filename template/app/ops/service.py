"""Pages of queues, processes and schedules."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Query, Request, Response

from app.dependencies import DBSession, JobsDep, SchedulesDep
from app.ops.page import done, render, router
from app.schemas.schedules import MAX_REVISION, ScheduleId

PAGE = 50  # schedules

Pause = Literal["pause", "resume"]
Name = Annotated[str, Query(max_length=300)]
Id = Annotated[ScheduleId, Query()]


def _place(after: str | None = None) -> dict[str, str]:
    return {} if after is None else {"after": after}


Place = Annotated[dict[str, str], Depends(_place)]  # where the page of schedules begins

routes = router()


@routes.get("/queues")
async def list_queues(request: Request, jobs: JobsDep) -> Response:
    return render(request, "queues.html", queues=await jobs.queues())


@routes.post("/queues/{action}")
async def change_queue(
    request: Request, action: Pause, queue: Name, session: DBSession, jobs: JobsDep
) -> Response:
    await (jobs.pause if action == "pause" else jobs.resume)(queue)
    await session.commit()
    return done(request, f"Queue {queue}: {action}d.", "/ops/queues")


@routes.get("/processes")
async def list_processes(request: Request, jobs: JobsDep) -> Response:
    return render(request, "processes.html", processes=await jobs.processes())


@routes.get("/schedules")
async def list_schedules(request: Request, schedules: SchedulesDep, place: Place) -> Response:
    found = await schedules.find(PAGE + 1, **place)
    more = len(found) > PAGE
    return render(request, "schedules.html", found=found[:PAGE], more=more, place=place)


@routes.post("/schedules/run")
async def run_schedule(
    request: Request, schedule: Id, schedules: SchedulesDep, session: DBSession
) -> Response:
    job = await schedules.run(schedule)
    await session.commit()
    return done(request, f"A job of {schedule} is submitted.", f"/ops/jobs/{job.id}")


@routes.post("/schedules/{action}")
async def change_schedule(
    request: Request,
    action: Pause,
    schedule: Id,
    revision: Annotated[int, Query(ge=1, le=MAX_REVISION)],
    place: Place,
    schedules: SchedulesDep,
    session: DBSession,
) -> Response:
    await schedules.change(schedule, revision, paused=action == "pause")
    await session.commit()
    return done(request, f"Schedule {schedule}: {action}d.", "/ops/schedules", **place)
