from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from app.jobs import Status, StoredJob, Try
from app.jobs.backends import EPOCH, MAX_COUNT
from app.schemas.response import shown

# They replace values that can't be read; `problem` says so.
STAND_INS = {
    "job_id": UUID(int=0),
    "task": "unknown",
    "status": "unknown",
    "queue": "unknown",
    "attempts": 0,
    "max_attempts": 0,
    "run_at": datetime.fromtimestamp(0, UTC),
    "created_at": datetime.fromtimestamp(0, UTC),
    "tries": [],
    "origin": {},
}
COUNTS = "attempts", "max_attempts", "crashes", "pushes"

LATEST = datetime(3000, 1, 1, tzinfo=UTC)
WITHIN = Field(ge=EPOCH, le=LATEST)
Moment = Annotated[AwareDatetime, WITHIN]
CURSOR_PATTERN = "^[0-9]{16}-[0-9a-f]{32}$"


def cursor_of(place: tuple[datetime, UUID]) -> str:
    """The microsecond in which a job was created, and its id."""
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
    run_at: datetime = Field(description="it isn't tried before")
    started_at: datetime | None = None
    finished_at: datetime | None = None
    problem: str | None = Field(default=None, description="what is wrong with the row itself")

    @classmethod
    def of(cls, job: StoredJob, *, whole_error: bool = True) -> Self:
        """Without `whole_error` only an error's class is shown: its text can have secrets."""
        out, wrong = shown(cls, {**vars(job), "job_id": job.id}, STAND_INS)
        full = [name for name in COUNTS if getattr(job, name) == MAX_COUNT]
        out.problem = wrong or (f"{', '.join(full)}: at the limit" if full else None)
        if out.error and not whole_error:
            out.error = out.error.partition(":")[0]
        return out


class JobListed(JobOut):
    """A job as operators see it in a list."""

    queue: str
    key: str | None = None
    max_attempts: int
    worker: str | None = Field(default=None, description="host:pid that has tried it last")


class JobDetails(JobListed):
    args: Any = Field(default=None, description="gone once it has succeeded")
    tries: list[Try] = Field(description="the last ten, oldest first")
    origin: dict[str, Any] = Field(
        description="what submitted it: request_id, schedule_id, job_id, as far as there was one"
    )


class JobAccepted(BaseModel):
    job_id: UUID


class Selection(BaseModel):
    """The jobs for which all conditions hold. At least one must be given."""

    model_config = ConfigDict(extra="forbid")

    task: Annotated[str, Field(max_length=200)] | None = None
    queue: Annotated[str, Field(max_length=100)] | None = None
    key: Annotated[str, Field(max_length=300)] | None = None
    since: Moment | None = Field(default=None, description="created then or later")
    until: Moment | None = Field(default=None, description="created before")
    error: Annotated[str, Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="a part of the error's text; case doesn't matter"
    )

    @model_validator(mode="after")
    def _refuse_everything(self) -> Self:
        if not self.wanted:
            raise ValueError(f"give at least one of {', '.join(Selection.model_fields)}")
        return self

    @property
    def wanted(self) -> dict[str, Any]:
        return self.model_dump(exclude={"dry_run"}, exclude_none=True)


class ReplaySelection(Selection):
    status: Literal[Status.DEAD] | None = None
    dry_run: bool = False


class CancelSelection(Selection):
    status: Literal[Status.PENDING, Status.RUNNING] | None = None
    dry_run: bool = False


class ChangedOut(BaseModel):
    """Counting stops at 100,000 jobs of each status: then there may be more."""

    found: int
    changed: int
    left: int = Field(description="jobs that match still: ask again, or another job has their key")
