"""The control's table `orders`, in its own database. `python -m control.orders` creates it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

from app.core.database import sync_engine
from pydantic import BaseModel, Field
from sqlalchemy import DateTime, String, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


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


class OrderCreate(BaseModel):
    item: str = Field(min_length=1, max_length=200)
    quantity: int = Field(ge=1, le=1_000_000)


def add_orders(number: int) -> list[UUID]:
    """Insert all orders with one statement. What is measured is how their jobs are enqueued."""
    orders = [{"id": uuid4(), "item": "tea", "quantity": 2} for _ in range(number)]
    with sync_engine.begin() as connection:
        connection.execute(insert(Order), orders)
    return [UUID(str(order["id"])) for order in orders]


if __name__ == "__main__":
    Base.metadata.create_all(sync_engine)
