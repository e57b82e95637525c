"""The work of each peer's jobs: nothing, or the service's work on an order."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from uuid import UUID, uuid4

from sqlalchemy import DateTime, String, insert, make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

CONCURRENCY = 10
DSN = os.environ["DATABASE_URL"]
engine = create_async_engine(
    make_url(DSN).set(drivername="postgresql+psycopg"), pool_size=CONCURRENCY, max_overflow=0
)
JobSession = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    item: Mapped[str] = mapped_column(String(200))
    quantity: Mapped[int]
    status: Mapped[str] = mapped_column(String(20), default="pending")
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), default=lambda: datetime.now(UTC)
    )


async def noop() -> None:
    pass


async def process_order(order_id: str) -> None:
    async with JobSession() as db:
        order = await db.get(Order, UUID(order_id))
        if order:
            order.status = "processed"
            await db.commit()


async def make_tables() -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


async def add_orders(number: int) -> list[str]:
    orders = [{"id": uuid4(), "item": "tea", "quantity": 2} for _ in range(number)]
    async with engine.begin() as connection:
        await connection.execute(insert(Order), orders)
    return [str(order["id"]) for order in orders]
