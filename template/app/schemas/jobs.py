from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from app.jobs.table import Status

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CURSOR_PATTERN = "^[0-9]{16}-[0-9a-f]{32}$"


def cursor_of(row: Any) -> str:
    """Where a job is among those of its status: the microsecond that it was made in, and its id."""
    return f"{(row.created_at - EPOCH) // timedelta(microseconds=1):016}-{row.id.hex}"


def place_of(cursor: str) -> tuple[datetime, UUID]:
    microseconds, job_id = cursor.split("-")
    return EPOCH + timedelta(microseconds=int(microseconds)), UUID(job_id)


class JobOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    job_id: UUID
    task: str
    status: Status
    attempts: int
    result: Any = None
    error: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @classmethod
    def of(cls, row: Any, *, whole_error: bool) -> Self:
        """An error's text can hold secrets: without the key only its class is shown."""
        out = cls.model_validate({**row._mapping, "job_id": row.id})
        if out.error and not whole_error:
            out.error = out.error.partition(":")[0]
        return out


class JobAccepted(BaseModel):
    job_id: UUID


class QueueOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    queue: str
    backend: str | None
    waiting: int = 0
    oldest_seconds: float | None = None
    dead: int = 0
