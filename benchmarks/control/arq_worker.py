"""ARQ's worker, as the pattern document describes it."""

from __future__ import annotations

import os
import time
from typing import Any
from uuid import UUID

from app.config import get_settings
from app.core.database import JobSession
from arq.connections import RedisSettings
from control.orders import Order


async def process_order(ctx: dict[str, Any], order_id: UUID) -> dict[str, object]:
    async with JobSession() as db:
        order = await db.get(Order, order_id)
        if order:
            order.status = "processed"
            await db.commit()
    return {"order_id": order_id, "status": "processed"}


async def noop(ctx: dict[str, Any]) -> None:
    pass


async def stamp(ctx: dict[str, Any], sent: float) -> float:
    return time.time() - sent


class WorkerSettings:
    functions = (process_order, noop, stamp)
    redis_settings = RedisSettings.from_dsn(get_settings().redis_url)
    max_jobs = 10
    job_timeout = 300
    poll_delay = float(os.environ["CONTROL_POLL_DELAY"])
