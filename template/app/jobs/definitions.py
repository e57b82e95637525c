"""What is in force of a schedule, as its row keeps it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from app.jobs.schedules import MAX_GRACE, CatchUp, Overlap, Schedule, Trigger, dump, load


class Definition(BaseModel):
    """Raises ValidationError for garbage, and for what only a newer release understands."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    trigger: Annotated[Trigger, PlainValidator(load)]
    args: dict[str, Any]
    misfire_grace: Annotated[float, Field(ge=0, le=MAX_GRACE.total_seconds())]
    catch_up: CatchUp
    overlap: Overlap

    @property
    def grace(self) -> timedelta:
        return timedelta(seconds=self.misfire_grace)


def definition_of(schedule: Schedule) -> dict[str, Any]:
    """A declared schedule as it is stored."""
    return {
        "trigger": dump(schedule.trigger),
        "args": schedule.task.dump(*schedule.args),
        "misfire_grace": schedule.misfire_grace.total_seconds(),
        "catch_up": schedule.catch_up,
        "overlap": schedule.overlap,
        "task": schedule.task.name,
    }
