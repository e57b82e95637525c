"""ARQ in a route: the order is committed, then its job is enqueued."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID

from app.config import get_settings
from app.core.database import AsyncSessionLocal
from arq import ArqRedis, create_pool
from arq.connections import RedisSettings
from control.orders import Order, OrderCreate
from fastapi import Depends, FastAPI, Request
from sqlalchemy.ext.asyncio import AsyncSession


@asynccontextmanager
async def lifespan(api: FastAPI) -> AsyncIterator[None]:
    api.state.arq_redis = await create_pool(RedisSettings.from_dsn(get_settings().redis_url))
    yield
    await api.state.arq_redis.aclose()


async def get_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSessionLocal() as session:
        yield session


async def get_arq(request: Request) -> ArqRedis:
    pool: ArqRedis = request.app.state.arq_redis
    return pool


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=201)
async def create_order(
    order: OrderCreate,
    db: Annotated[AsyncSession, Depends(get_session)],
    arq: Annotated[ArqRedis, Depends(get_arq)],
) -> dict[str, UUID | str | None]:
    db_order = Order(**order.model_dump())
    db.add(db_order)
    await db.commit()
    await db.refresh(db_order)
    job = await arq.enqueue_job("process_order", db_order.id)
    return {"order_id": db_order.id, "job_id": job.job_id if job else None}
