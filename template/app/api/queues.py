"""What operators see of queues and processes, and how they pause a queue."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from app.api.errors import answers
from app.api.routing import Router
from app.dependencies import OPERATORS, DBSession, JobsDep
from app.schemas.queues import ProcessOut, QueueOut
from app.schemas.response import ApiResponse

router = Router(tags=["queues"], dependencies=OPERATORS, responses=answers(401, 503))

Name = Annotated[str, Path(max_length=100)]  # it may have a slash


@router.get("/queues")
async def list_queues(jobs: JobsDep) -> ApiResponse[list[QueueOut]]:
    """How many jobs of each queue wait, run and are dead, also if no process carries the queue."""
    return ApiResponse(data=[QueueOut.of(each) for each in await jobs.queues()])


@router.post("/queues/{queue:path}/pause", responses=answers(404))
async def pause_queue(queue: Name, session: DBSession, jobs: JobsDep) -> ApiResponse[QueueOut]:
    """Start none of its jobs until it is resumed, also after a deploy. Jobs that run go on."""
    paused = await jobs.pause(queue)
    await session.commit()
    return ApiResponse(data=QueueOut.of(paused))


@router.post("/queues/{queue:path}/resume", responses=answers(404))
async def resume_queue(queue: Name, session: DBSession, jobs: JobsDep) -> ApiResponse[QueueOut]:
    resumed = await jobs.resume(queue)
    await session.commit()
    return ApiResponse(data=QueueOut.of(resumed))


@router.get("/processes")
async def list_processes(jobs: JobsDep) -> ApiResponse[list[ProcessOut]]:
    """The processes that were seen in the last five minutes."""
    return ApiResponse(data=[ProcessOut.of(each) for each in await jobs.processes()])
