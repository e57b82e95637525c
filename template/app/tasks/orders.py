"""The work on an order after it was accepted."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import NonRetryable, task
from app.models import Order


@task(queue="orders", tries=3, timeout=timedelta(minutes=1))
async def process_order(db: AsyncSession, order_id: UUID) -> dict[str, str]:
    """Process an order. What it writes commits when the job succeeds, exactly once."""
    order = await db.get(Order, order_id)
    if order is None:
        raise NonRetryable(f"order {order_id} is gone")
    order.status = "processed"
    return {"order_id": str(order_id), "status": order.status}
