"""Health checks. `live` uses no dependency; `ready` names the part that doesn't work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

from fastapi import Response, status

from app.api.routing import Router
from app.core.concurrency import in_thread
from app.core.control import control
from app.core.loading import Migrations
from app.core.outages import database_clock
from app.core.requests import is_draining
from app.jobs.backends import current_relay, is_clock, ping_clock, try_to_write
from app.schemas.response import ApiResponse

router = Router(prefix="/health", tags=["health"], limited=False)

TIMEOUT = 2
DOWN = {"model": ApiResponse[dict[str, str]], "description": "A part is down"}

_migrated = False


@router.get("/live")
async def live() -> ApiResponse[dict[str, str]]:
    return ApiResponse(data={"status": "ok"})


@router.get("/ready", responses={503: DOWN})
async def ready(response: Response) -> ApiResponse[dict[str, str]]:
    """It answers 503 while a part doesn't work, and before a stop.

    As long as the database works, jobs are accepted all the same.

    `migrations` is `behind` until this release's migrations have run. Until then writes may fail.

    `clock` is the database's clock. For ten minutes after it has jumped, this part says so. That
    alone is no reason for a 503.
    """
    relay = current_relay()
    bells = relay.bells if relay else {}
    checks: dict[str, Awaitable[str | None]] = {
        "database": _ping_database(),
        "migrations": _compare_schema(),
        **{name: bell.ping() for name, bell in bells.items()},
    }
    if is_clock():
        checks["schedules"] = ping_clock()
    states = await asyncio.gather(*map(_state, checks.values()))
    parts = dict(zip(checks, states, strict=True))
    parts["api"] = "stopping" if is_draining() else "ok"
    if {"down", "behind", "stopping"} & set(parts.values()):
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    jumped = database_clock.recent_jump()
    return ApiResponse(data=parts | {"clock": str(jumped) if jumped else "ok"})


async def _ping_database() -> None:
    asked = time.monotonic()
    database_clock.note(await control(try_to_write, transaction=True), asked)


async def _compare_schema() -> str:
    """Once nothing is missing, the database isn't asked again."""
    global _migrated
    if not _migrated:
        migrations = await in_thread(Migrations)  # it imports Alembic, and reads files
        _migrated = not (await control(migrations.compare)).missing
    return "ok" if _migrated else "behind"


async def _state(check: Awaitable[str | None]) -> str:
    try:
        return await asyncio.wait_for(check, TIMEOUT) or "ok"
    except Exception:  # its text may name hosts, and so it isn't in the answer
        return "down"
