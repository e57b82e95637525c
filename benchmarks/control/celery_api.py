"""Celery in a route: the order is committed, then its task is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from app.core.database import AsyncSessionLocal
from control.celery_app import process_order
from control.orders import Order, OrderCreate
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession


async def get_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSessionLocal() as session:
        yield session


app = FastAPI()


@app.post("/orders", status_code=201)
async def create_order(
    order: OrderCreate, db: Annotated[AsyncSession, Depends(get_session)]
) -> dict[str, UUID | str]:
    db_order = Order(**order.model_dump())
    db.add(db_order)
    await db.commit()
    await db.refresh(db_order)
    task = process_order.delay(str(db_order.id))
    return {"order_id": db_order.id, "task_id": task.id}
