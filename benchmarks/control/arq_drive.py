"""Enqueue jobs as a route does: python -m control.arq_drive WHAT N."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

from app.config import get_settings
from arq import ArqRedis, create_pool
from arq.connections import RedisSettings
from control.orders import add_orders


async def noops(number: int, redis: ArqRedis) -> None:
    for _ in range(number):
        await redis.enqueue_job("noop")


async def orders(number: int, redis: ArqRedis) -> None:
    for order_id in add_orders(number):
        await redis.enqueue_job("process_order", order_id)


async def latency(number: int, redis: ArqRedis) -> list[float]:
    """The seconds from each call to the start of its task. Only one job runs at a time."""
    enqueued = []
    for _ in range(number):
        await asyncio.sleep(random.uniform(0.05, 0.15))
        enqueued.append(await redis.enqueue_job("stamp", time.time()))
    return [await job.result(timeout=30) for job in enqueued if job]


async def main() -> None:
    what = {"noops": noops, "orders": orders, "latency": latency}[sys.argv[1]]
    redis = await create_pool(RedisSettings.from_dsn(get_settings().redis_url))
    print(json.dumps(await what(int(sys.argv[2]), redis)))
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main())
