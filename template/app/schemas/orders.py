from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class OrderCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    item: str = Field(min_length=1, max_length=200)
    quantity: int = Field(ge=1, le=1_000_000)


class OrderOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    item: str
    quantity: int
    status: str
    created_at: datetime


class OrderAccepted(BaseModel):
    order: OrderOut
    job_id: UUID
