"""Probes: live touches no dependency, ready names the part that is down or can't be written to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from uuid import uuid4

from fastapi import Response, status
from sqlalchemy import Connection, delete, insert

from app.api.routing import Router
from app.core.control import control
from app.jobs import dispatcher, relay
from app.jobs.table import clock, known_tasks
from app.schemas.response import ApiResponse

router = Router(prefix="/health", tags=["health"])

TIMEOUT = 2
DOWN = {"model": ApiResponse[dict[str, str]], "description": "A part is down"}


@router.get("/live")
async def live() -> ApiResponse[dict[str, str]]:
    return ApiResponse(data={"status": "ok"})


@router.get("/ready", responses={503: DOWN})
async def ready(response: Response) -> ApiResponse[dict[str, str]]:
    """503 while a part doesn't answer; with the database there, jobs are accepted all the same."""
    running = relay.current()
    bells = running.bells if running else {}
    checks = {"database": _ping_database()} | {name: bell.ping() for name, bell in bells.items()}
    if dispatcher.is_clock():
        checks["schedules"] = dispatcher.ping()
    states = await asyncio.gather(*map(_state, checks.values()))
    if "down" in states:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return ApiResponse(data=dict(zip(checks, states, strict=True)))


async def _ping_database() -> None:
    """A row that comes and goes in one transaction: who can be read from may be full."""
    await control(_write, transaction=True)


def _write(connection: Connection) -> None:
    name = f"ready {uuid4()}"
    connection.execute(insert(known_tasks).values(name=name, seen_at=clock(0)))
    connection.execute(delete(known_tasks).where(known_tasks.c.name == name))


async def _state(check: Awaitable[None]) -> str:
    try:
        await asyncio.wait_for(check, TIMEOUT)
    except Exception:  # whatever it is, it names hosts: it stays out of the answer
        return "down"
    return "ok"
