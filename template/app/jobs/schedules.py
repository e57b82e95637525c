"""A schedule as the code declares it, and as its row keeps it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from app.jobs.contract import Arguments, Task, find_task, registry
from app.jobs.triggers import EPOCH, Trigger, next_tick, require

ON_TIME = timedelta(seconds=5)  # a tick is late only if it is later than this
MAX_GRACE = timedelta(days=366)
MAX_LATE = 1000  # ticks within the grace of a schedule whose `catch_up` is `each`
ID_PATTERN, MAX_ID = r"^\w[\w .:-]*$", 200

CatchUp = Literal["latest", "each"]
Overlap = Literal["queue", "skip"]


@dataclass(frozen=True)
class Schedule:
    """Submit `task(*args)` at each tick of `trigger`.

    `catch_up` is for ticks that are late, by `misfire_grace` at most: `latest` submits one job for
    all of them, `each` submits one job for each. `overlap` is for a tick that comes before the job
    of the last tick has ended: `queue` submits a job all the same (the task's `max_running` bounds
    how many run at once), `skip` submits none.

    Raises ValueError, which names the schedule, also for arguments that the task refuses.
    """

    id: str
    trigger: Trigger
    task: Task[..., Any, Any]
    args: tuple[Any, ...] = ()
    misfire_grace: timedelta = timedelta(minutes=5)
    catch_up: CatchUp = "latest"
    overlap: Overlap = "queue"

    def __post_init__(self) -> None:
        try:
            is_id = len(self.id) <= MAX_ID and re.fullmatch(ID_PATTERN, self.id)
            require(bool(is_id), f"no id: must match {ID_PATTERN}, at most {MAX_ID} characters")
            self.task.serialize(*self.args)
            check_grace(self.trigger, self.misfire_grace, self.catch_up)
        except (TypeError, ValueError) as error:
            raise ValueError(f"schedule {self.id!r}: {one_line(error)}") from None


def check_grace(trigger: Trigger, grace: timedelta, catch_up: CatchUp) -> None:
    """Raise ValueError for a grace that is too long, or in which too many ticks would run."""
    require(timedelta(0) <= grace <= MAX_GRACE, "misfire_grace is not within 0 and 366 days")
    first = tick = next_tick(trigger, EPOCH)
    ticks = 0
    while catch_up == "each" and first and tick and tick - first <= grace:
        ticks += 1
        require(ticks <= MAX_LATE, f"more than {MAX_LATE} ticks within misfire_grace: use latest")
        tick = next_tick(trigger, tick)


class Definition(BaseModel):
    """What a schedule does at present. `args` are by name, `misfire_grace` is in seconds.

    Raises ValidationError for garbage, and for what only a newer release understands.
    """

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)

    trigger: Trigger
    args: Arguments
    misfire_grace: Annotated[float, Field(ge=0, le=MAX_GRACE.total_seconds())]
    catch_up: CatchUp
    overlap: Overlap

    @property
    def grace(self) -> timedelta:
        return timedelta(seconds=self.misfire_grace)


def definition_of(schedule: Schedule) -> dict[str, JsonValue]:
    """A declared schedule as it is stored."""
    wanted = Definition(
        trigger=schedule.trigger,
        args=schedule.task.serialize(*schedule.args),
        misfire_grace=schedule.misfire_grace.total_seconds(),
        catch_up=schedule.catch_up,
        overlap=schedule.overlap,
    )
    return wanted.model_dump(mode="json") | {"task": schedule.task.name}


@dataclass(frozen=True)
class StoredSchedule:
    """A schedule's row. A value that somebody broke by hand is here as it was read."""

    id: str
    declared: JsonValue  # as the code last declared it; None: an operator made it
    definition: JsonValue  # what it does at present: a `Definition`, unless it is broken
    task: str
    paused: bool
    revision: int
    next_tick: datetime | None
    last_tick: datetime | None
    last_job_id: UUID | None
    missed_since: datetime | None
    missed_until: datetime | None
    late: timedelta | None = None  # for how long its next tick has been overdue, if it is

    @classmethod
    def of(cls, now: datetime, **row: Any) -> Self:
        """`now` is the database's time."""
        tick, paused = row["next_tick"], row["paused"]
        overdue = now - tick if tick and not paused else timedelta(0)
        return cls(**row, late=overdue if overdue > ON_TIME else None)

    def read(self) -> Definition:
        """Raises ValidationError."""
        return Definition.model_validate(self.definition)

    def upcoming(self, number: int = 3) -> list[datetime]:
        """Its next ticks; none while it is paused, over or broken."""
        ticks: list[datetime] = []
        tick = None if self.paused else self.next_tick or None
        with suppress(ValueError, OverflowError):  # a tick at the end of the calendar
            trigger = self.read().trigger
            while tick and len(ticks) < number:
                ticks.append(tick)
                tick = next_tick(trigger, tick)
        return ticks

    @property
    def problem(self) -> str | None:
        """Why this process can't run it. During a deploy another process may know the task."""
        if self.task not in registry():
            return "unknown task"
        try:
            find_task(self.task).check(self.read().args)
        except ValueError as error:
            return one_line(error)
        return None


class ScheduleNotFoundError(LookupError):
    """No schedule has this id."""


class ScheduleConflictError(RuntimeError):
    """The present state of the schedule doesn't allow this."""


class InvalidScheduleError(ValueError):
    """`errors` are like pydantic's: each names the field and what is wrong with it."""

    def __init__(self, errors: Sequence[Any]) -> None:
        super().__init__(errors)
        self.errors = errors


def one_line(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    each = ((".".join(map(str, one["loc"])), one["msg"]) for one in error.errors())
    return ", ".join(f"{name}: {message}" for name, message in each)
