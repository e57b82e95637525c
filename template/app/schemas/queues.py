from __future__ import annotations

from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel, Field

from app.jobs import ProcessState, QueueState
from app.schemas.response import shown


class QueueOut(BaseModel):
    """Counts end at 10,000. Then `..._is_at_least` is true: there may be more."""

    queue: str
    backend: str | None = Field(description="null: no back end carries it")
    waiting: int = Field(description="jobs that are due")
    waiting_is_at_least: bool
    oldest_seconds: float | None = Field(description="for how long the first has been due")
    running: int
    dead: int
    dead_is_at_least: bool
    paused_at: datetime | None
    processes: int = Field(description="live ones that carry it; with 0 none of its jobs run")

    @classmethod
    def of(cls, state: QueueState) -> Self:
        seconds = None if state.age is None else state.age.total_seconds()
        return cls(queue=state.name, oldest_seconds=seconds, **vars(state))


# They replace values that can't be read.
STAND_INS = {
    "id": UUID(int=0),
    "host": "unknown",
    "pid": 0,
    "queues": [],
    "slots": 0,
    "busy": 0,
    "started_at": datetime.fromtimestamp(0, UTC),
    "seen_at": datetime.fromtimestamp(0, UTC),
    "alive": False,
}


class ProcessOut(BaseModel):
    id: UUID
    host: str
    pid: int
    backend: str | None = Field(description="whose queues it hosts; null: it hosts none")
    version: str | None = Field(description="what RELEASE was when it started")
    queues: list[str]
    slots: int
    busy: int = Field(description="slots, when it was last seen")
    started_at: datetime
    seen_at: datetime
    alive: bool = Field(description="whether it was seen in the last half minute")

    @classmethod
    def of(cls, state: ProcessState) -> Self:
        out, _ = shown(cls, vars(state), STAND_INS)
        return out
