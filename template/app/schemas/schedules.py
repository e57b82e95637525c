from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self, cast
from uuid import UUID, uuid4

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.jobs import CatchUp, Changes, Definition, Overlap, StoredSchedule, Trigger
from app.jobs.backends import ID_PATTERN, MAX_GRACE, MAX_ID, registry
from app.schemas.response import shown

MAX_REVISION = 2**31 - 1  # of its column
PARTS = Definition.model_fields


def _known(task: str) -> str:
    if task not in registry():
        raise ValueError(f"unknown task; there are {', '.join(sorted(registry()))}")
    return task


# A pattern that counts characters takes a tenth of a second to compile.
ScheduleId = Annotated[str, Field(pattern=ID_PATTERN, max_length=MAX_ID)]
Grace = Annotated[float, Field(ge=0, le=MAX_GRACE.total_seconds(), description="seconds")]
AnyTrigger = Annotated[
    Trigger,
    Field(
        examples=[
            {"kind": "interval", "minutes": 5},
            {"kind": "cron", "expression": "0 6 * * mon-fri", "timezone": "Europe/Berlin"},
            {"kind": "calendar", "months": 1, "hour": 9, "start": "2026-01-15"},
            {"kind": "date", "at": "2026-12-24T18:00:00+01:00"},
        ]
    ),
]


class ScheduleCreate(BaseModel):
    """`args` has the task's arguments by name."""

    model_config = ConfigDict(extra="forbid")

    id: ScheduleId = Field(default_factory=lambda: str(uuid4()))
    task: Annotated[str, AfterValidator(_known)]
    trigger: AnyTrigger
    args: dict[str, Any] = {}
    misfire_grace: Grace = 300
    catch_up: CatchUp = "latest"
    overlap: Overlap = "queue"
    paused: bool = False

    def definition(self) -> Definition:
        return Definition.model_validate({name: getattr(self, name) for name in PARTS})


class ScheduleChange(BaseModel):
    """What is left out or null doesn't change. `revision` is the one that was read last."""

    model_config = ConfigDict(extra="forbid")

    revision: int = Field(ge=1, le=MAX_REVISION)
    trigger: AnyTrigger | None = None
    args: dict[str, Any] | None = None
    misfire_grace: Grace | None = None
    catch_up: CatchUp | None = None
    overlap: Overlap | None = None
    paused: bool | None = None

    def definition(self) -> Changes:
        """The parts of the schedule's definition that change."""
        given = {name: value for name in PARTS if (value := getattr(self, name)) is not None}
        return cast(Changes, given)


# They replace values that can't be read; `problem` says so.
STAND_INS = {
    "id": "unknown",
    "task": "unknown",
    "trigger": {},
    "args": {},
    "misfire_grace": 0,
    "catch_up": "unknown",
    "overlap": "unknown",
    "paused": False,
    "revision": 1,
}


class ScheduleOut(BaseModel):
    id: str
    task: str
    trigger: dict[str, Any]
    args: dict[str, Any]
    misfire_grace: float
    catch_up: CatchUp | Literal["unknown"]
    overlap: Overlap | Literal["unknown"]
    paused: bool
    revision: int
    declared: bool
    problem: str | None
    next_tick: datetime | None
    last_tick: datetime | None
    last_job_id: UUID | None
    missed_since: datetime | None
    missed_until: datetime | None
    late: float | None = Field(description="seconds for which its next tick has been overdue")
    upcoming: list[datetime] = Field(description="its next three ticks; none while it is paused")

    @classmethod
    def of(cls, schedule: StoredSchedule) -> Self:
        """The problem is what this process sees. During a deploy another may know the task."""
        definition = schedule.definition if isinstance(schedule.definition, dict) else {}
        stored = {name: each for name, each in definition.items() if name in cls.model_fields}
        computed = {
            "declared": schedule.declared is not None,
            "problem": None,
            "late": schedule.late and schedule.late.total_seconds(),
            "upcoming": schedule.upcoming(),
            "next_tick": None if schedule.paused else schedule.next_tick,
        }
        out, wrong = shown(cls, {**stored, **vars(schedule), **computed}, STAND_INS)
        out.problem = schedule.problem or wrong
        return out
