"""Orders, and the job that is submitted with each new one.

A service never commits. Whoever opened the session commits it: a route, or what runs a task.
"""

from __future__ import annotations

from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import Jobs
from app.models import Order
from app.schemas.orders import OrderCreate
from app.tasks.orders import process_order


class OrderNotFoundError(LookupError):
    """No order has this id."""


class IdempotencyConflictError(ValueError):
    """The Idempotency-Key was used before, with another body."""


class OrderService:
    def __init__(self, session: AsyncSession, jobs: Jobs) -> None:
        self._session = session
        self._jobs = jobs

    async def create(self, order: OrderCreate, idempotency_key: str | None = None) -> Order:
        """Store an order and submit its job. The commit keeps both.

        The same key and body give the same order again. Raises IdempotencyConflictError.
        """
        if idempotency_key is None:
            return await self._store(order)
        if known := await self._known(idempotency_key, order):
            return known
        try:
            async with self._session.begin_nested():
                return await self._store(order, idempotency_key)
        except IntegrityError:  # another request with this key was faster
            if known := await self._known(idempotency_key, order):
                return known
            raise

    async def get(self, order_id: UUID) -> Order:
        """Raises OrderNotFoundError."""
        order = await self._session.get(Order, order_id)
        if order is None:
            raise OrderNotFoundError(order_id)
        return order

    async def _store(self, order: OrderCreate, idempotency_key: str | None = None) -> Order:
        created = Order(id=uuid4(), **order.model_dump(), idempotency_key=idempotency_key)
        created.job_id = (await self._jobs.submit(process_order, created.id)).id
        self._session.add(created)
        await self._session.flush()
        return created

    async def _known(self, key: str, order: OrderCreate) -> Order | None:
        known = await self._session.scalar(select(Order).where(Order.idempotency_key == key))
        if known and (known.item, known.quantity) != (order.item, order.quantity):
            raise IdempotencyConflictError("this Idempotency-Key came with another body before")
        return known
