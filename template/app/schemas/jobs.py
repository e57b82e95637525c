from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field

from app.jobs import Status, StoredJob
from app.jobs.backends import MAX_COUNT
from app.schemas.response import shown

# For what a row of garbage has in their places; `problem` says so.
STAND_INS = {
    "job_id": UUID(int=0),
    "task": "unknown",
    "status": "unknown",
    "attempts": 0,
    "created_at": datetime.fromtimestamp(0, UTC),
}
COUNTS = "attempts", "max_attempts", "crashes", "pushes"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CURSOR_PATTERN = "^[0-9]{16}-[0-9a-f]{32}$"


def cursor_of(place: tuple[datetime, UUID]) -> str:
    """The microsecond that a job was made in, and its id."""
    microseconds = (place[0] - EPOCH) // timedelta(microseconds=1)
    return f"{microseconds:016}-{place[1].hex}"


def place_of(cursor: str) -> tuple[datetime, UUID]:
    microseconds, job_id = cursor.split("-")
    return EPOCH + timedelta(microseconds=int(microseconds)), UUID(job_id)


class JobOut(BaseModel):
    job_id: UUID
    task: str
    status: Status | Literal["unknown"]
    attempts: int
    result: Any = None
    error: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    problem: str | None = Field(default=None, description="what is wrong with the row itself")

    @classmethod
    def of(cls, job: StoredJob, *, whole_error: bool) -> Self:
        """An error's text can hold secrets: without the key only its class is shown."""
        out, wrong = shown(cls, {**vars(job), "job_id": job.id}, STAND_INS)
        full = [name for name in COUNTS if getattr(job, name) == MAX_COUNT]
        out.problem = wrong or (f"{', '.join(full)}: at the limit" if full else None)
        if out.error and not whole_error:
            out.error = out.error.partition(":")[0]
        return out


class JobAccepted(BaseModel):
    job_id: UUID


class QueueOut(BaseModel):
    queue: str
    backend: str | None
    waiting: int = 0
    oldest_seconds: float | None = None
    dead: int = 0
