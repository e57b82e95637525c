"""Schedules that operators make, change, pause and run; the dispatcher sees it a second later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Row, String, case, cast, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import Job, Jobs, UnknownTaskError
from app.jobs.backends import (
    MAX_COUNT,
    Definition,
    Task,
    check_grace,
    clock,
    find_task,
    load,
    next_tick,
    one_line,
    schedules,
)
from app.schemas.schedules import ScheduleChange, ScheduleCreate


class ScheduleNotFoundError(LookupError):
    """No schedule has this id."""


class ScheduleConflictError(RuntimeError):
    """The schedule, as it is, doesn't allow this."""


class InvalidScheduleError(ValueError):
    """`errors` names the fields, as pydantic's do."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(errors)
        self.errors = errors


class ScheduleService:
    def __init__(self, session: AsyncSession, jobs: Jobs) -> None:
        self._session = session
        self._jobs = jobs

    async def find(self, limit: int, *, after: str | None = None) -> Sequence[Row[Any]]:
        """The first in the order of their ids, or of those that come after this one."""
        found = select(schedules).order_by(schedules.c.id).limit(limit)
        if after is not None:
            found = found.where(schedules.c.id > after)
        return (await self._session.execute(found)).all()

    async def get(self, schedule_id: str) -> Row[Any]:
        """Raises ScheduleNotFoundError."""
        found = select(schedules).where(schedules.c.id == schedule_id)
        row = (await self._session.execute(found)).first()
        if row is None:
            raise ScheduleNotFoundError(schedule_id)
        return row

    async def create(self, wanted: ScheduleCreate) -> Row[Any]:
        """Raises InvalidScheduleError, ScheduleConflictError where the id is taken."""
        definition = checked(wanted.model_dump(exclude={"id", "paused"}))
        values = {
            "id": wanted.id,
            "definition": definition,
            "task": wanted.task,
            "paused": wanted.paused,
            "next_tick": await self._first_tick(definition),
        }
        try:
            await self._session.execute(insert(schedules).values(values))
        except IntegrityError:
            raise ScheduleConflictError(f"there is a schedule {wanted.id!r}") from None
        await self._session.commit()
        return await self.get(wanted.id)

    async def change(self, schedule_id: str, change: ScheduleChange) -> Row[Any]:
        """What was due while the schedule was paused is not made up for.

        Raises ScheduleNotFoundError, InvalidScheduleError, ScheduleConflictError where somebody
        else has changed it since.
        """
        row = await self.get(schedule_id)
        values = await self._changes(row, change)
        as_read = schedules.c.id == schedule_id, schedules.c.revision == change.revision
        changed = update(schedules).where(*as_read).values(values).returning(schedules.c.id)
        if (await self._session.execute(changed)).first() is None:
            raise ScheduleConflictError("it has been changed since: get it, and its revision")
        await self._session.commit()
        return await self.get(schedule_id)

    async def _changes(self, row: Row[Any], change: ScheduleChange) -> dict[str, Any]:
        again = schedules.c.revision >= MAX_COUNT
        values: dict[str, Any] = {"revision": case((again, 1), else_=schedules.c.revision + 1)}
        if fields := change.definition():
            kept = row.definition if isinstance(row.definition, dict) else {}
            values["definition"] = checked({**kept, **fields, "task": row.task})
        if change.paused is not None:
            values["paused"] = change.paused
        if "trigger" in fields:
            values["next_tick"] = await self._first_tick(values["definition"])
        elif row.paused and change.paused is False:
            values["next_tick"] = next_tick(self._read(row).trigger, await self._now())
        return values

    async def delete(self, schedule_id: str) -> None:
        """Raises ScheduleNotFoundError, ScheduleConflictError for one that the code declares."""
        declared = schedules.c.declared
        by_rest = declared.is_(None) | (cast(declared, String) == "null")
        own = schedules.c.id == schedule_id, by_rest
        deleted = delete(schedules).where(*own).returning(schedules.c.id)
        if (await self._session.execute(deleted)).first() is None:
            await self.get(schedule_id)
            raise ScheduleConflictError("declared in code: pause it")
        await self._session.commit()

    async def run(self, schedule_id: str) -> Job[Any]:
        """A job at once, beside the ticks. Raises ScheduleNotFoundError, ScheduleConflictError."""
        row = await self.get(schedule_id)
        job = await self._jobs.submit_named(_known(row.task), self._read(row).args)
        await self._session.commit()
        return job

    def _read(self, row: Row[Any]) -> Definition:
        """Raises ScheduleConflictError."""
        try:
            return Definition.model_validate(row.definition)
        except ValueError as error:
            raise ScheduleConflictError(f"it is broken: {one_line(error)}") from None

    async def _now(self) -> datetime:
        return (await self._session.execute(select(clock(0)))).scalar_one()

    async def _first_tick(self, definition: dict[str, Any]) -> datetime:
        first = next_tick(load(definition["trigger"]), await self._now())
        with field("trigger"):
            if first is None:
                raise ValueError("never fires: it is over")
        return first


@contextmanager
def field(*name: str) -> Iterator[None]:
    """Say which field of the request the body's ValueError is about."""
    try:
        yield
    except ValidationError as error:
        inner = error.errors(include_url=False)
        raise InvalidScheduleError(
            [{**each, "loc": ("body", *name, *each["loc"])} for each in inner]
        ) from None
    except ValueError as error:
        wrong = {"type": "value_error", "loc": ("body", *name), "msg": f"Value error, {error}"}
        raise InvalidScheduleError([wrong]) from None


def checked(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition with its arguments as JSON.

    Raises InvalidScheduleError, ScheduleConflictError where the task is gone.
    """
    task = _known(definition["task"])
    with field():
        wanted = Definition.model_validate(definition)
    with field("args"):
        arguments = task.check(wanted.args)
    with field("misfire_grace"):
        check_grace(wanted.trigger, wanted.grace, wanted.catch_up)
    return {**definition, "args": arguments}


def _known(task: str) -> Task[..., Any, Any]:
    try:
        return find_task(task)
    except UnknownTaskError:
        raise ScheduleConflictError(f"unknown task {task!r}") from None
