"""What deploys and operators do with schedules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack

from pydantic import JsonValue, ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import bound_contextvars

from app.jobs import schedule_rows
from app.jobs.contract import Arguments, Task, UnknownTaskError, find_task
from app.jobs.schedules import (
    CatchUp,
    Definition,
    InvalidScheduleError,
    Overlap,
    Schedule,
    ScheduleConflictError,
    ScheduleNotFoundError,
    StoredSchedule,
    check_grace,
    definition_of,
    one_line,
)
from app.jobs.submit import Job, submit_named
from app.jobs.table import database_now
from app.jobs.triggers import Trigger, next_tick


class Changes(TypedDict, total=False):
    """The parts of a schedule's definition that are to be replaced."""

    trigger: Trigger
    args: Arguments
    misfire_grace: float
    catch_up: CatchUp
    overlap: Overlap


class Schedules:
    """What operators do with schedules, in the transaction of the session that it is made with.

    The dispatcher sees a change within a second of the commit.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find(self, limit: int, *, after: str | None = None) -> list[StoredSchedule]:
        """Schedules in the order of their ids, from the first or from the one after this id."""
        return await schedule_rows.find(self._session, limit, after)

    async def get(self, schedule_id: str) -> StoredSchedule:
        """Raises ScheduleNotFoundError."""
        if found := await schedule_rows.get(self._session, schedule_id):
            return found
        raise ScheduleNotFoundError(schedule_id)

    async def create(
        self, schedule_id: str, task: str, wanted: Definition, *, paused: bool = False
    ) -> StoredSchedule:
        """Raises InvalidScheduleError. Raises ScheduleConflictError if the id is taken."""
        values = {
            "definition": _checked(task, wanted),
            "task": task,
            "paused": paused,
            "next_tick": await self._first_tick(wanted.trigger),
        }
        try:
            async with self._session.begin_nested():
                await schedule_rows.add(self._session, schedule_id, values)
        except IntegrityError:
            raise ScheduleConflictError(f"there is a schedule {schedule_id!r}") from None
        return await self.get(schedule_id)

    async def change(
        self,
        schedule_id: str,
        revision: int,
        *,
        paused: bool | None = None,
        **changes: Unpack[Changes],
    ) -> StoredSchedule:
        """Change a schedule. Ticks of the time in which it is paused never run.

        Raises ScheduleNotFoundError, InvalidScheduleError. Raises ScheduleConflictError if somebody
        else has changed the schedule since this revision.
        """
        schedule = await self.get(schedule_id)
        values: dict[str, Any] = {}
        wanted = None
        if changes:
            kept = schedule.definition if isinstance(schedule.definition, dict) else {}
            with _part():
                wanted = Definition.model_validate({**kept, **changes})
            values["definition"] = _checked(schedule.task, wanted)
        if paused is not None:
            values["paused"] = paused
        if "trigger" in changes:
            values["next_tick"] = await self._first_tick(changes["trigger"])
        elif schedule.paused and paused is False:
            with _or_broken():
                trigger = (wanted or schedule.read()).trigger
            values["next_tick"] = next_tick(trigger, await database_now(self._session))
        if not await schedule_rows.change(self._session, schedule_id, values, revision):
            raise ScheduleConflictError("it has been changed since: get it, and its revision")
        return await self.get(schedule_id)

    async def delete(self, schedule_id: str) -> None:
        """Raises ScheduleNotFoundError, or ScheduleConflictError if the code declares it."""
        if not await schedule_rows.delete_made_by_operator(self._session, schedule_id):
            await self.get(schedule_id)
            raise ScheduleConflictError("declared in code: pause it")

    async def run(self, schedule_id: str) -> Job[Any]:
        """Submit a job beside its ticks. Raises ScheduleNotFoundError, ScheduleConflictError."""
        schedule = await self.get(schedule_id)
        task = _known(schedule.task)
        with _or_broken(), bound_contextvars(schedule_id=schedule.id):
            args = task.check(schedule.read().args)
            return await submit_named(self._session, task, args)

    async def overdue(self) -> timedelta:
        """How long the most overdue tick has been due."""
        return await schedule_rows.overdue(self._session)

    async def _first_tick(self, trigger: Trigger) -> datetime:
        first = next_tick(trigger, await database_now(self._session))
        with _part("trigger"):
            if first is None:
                raise ValueError("never fires: it is over")
        return first


def _checked(name: str, wanted: Definition) -> dict[str, JsonValue]:
    """The definition as it is stored. Raises InvalidScheduleError, ScheduleConflictError."""
    task = _known(name)
    with _part("args"):
        arguments = task.check(wanted.args)
    with _part("misfire_grace"):
        check_grace(wanted.trigger, wanted.grace, wanted.catch_up)
    return wanted.model_dump(mode="json") | {"args": arguments, "task": name}


@contextmanager
def _or_broken() -> Iterator[None]:
    """What the row has must be right, or the schedule can't do what is asked."""
    try:
        yield
    except ValueError as error:
        raise ScheduleConflictError(f"it is broken: {one_line(error)}") from None


def _known(task: str) -> Task[..., Any, Any]:
    try:
        return find_task(task)
    except UnknownTaskError:
        raise ScheduleConflictError(f"unknown task {task!r}") from None


@contextmanager
def _part(*name: str) -> Iterator[None]:
    """Say which part of the schedule the body's ValueError is about."""
    try:
        yield
    except ValidationError as error:
        inner = error.errors(include_url=False)
        raise InvalidScheduleError([{**e, "loc": (*name, *e["loc"])} for e in inner]) from None
    except ValueError as error:
        wrong = {"type": "value_error", "loc": name, "msg": f"Value error, {error}"}
        raise InvalidScheduleError([wrong]) from None


async def reconcile(session: AsyncSession, declared: Sequence[Schedule]) -> None:
    """Add, change and delete schedules until the table has what the code declares.

    A pause stays, and a schedule that an operator made. What an operator changed stays until the
    code declares something else. Raises ValueError when two schedules have one id.
    """
    ids = Counter(schedule.id for schedule in declared)
    if twice := [schedule_id for schedule_id, count in ids.items() if count > 1]:
        raise ValueError(f"two schedules are named {twice[0]!r}")
    stored = await schedule_rows.lock(session, ids)
    now = await database_now(session)
    for schedule in declared:
        await _declare(session, schedule, stored.get(schedule.id), now)
    await schedule_rows.delete_undeclared(session, ids)


def agrees(stored: StoredSchedule, schedule: Schedule) -> bool:
    """Whether the code declares what it last did. A set has another order in each process."""
    before: Any = stored.declared
    now: Any = definition_of(schedule)
    task = schedule.task
    if before == now:
        return True
    try:
        former, present = task.deserialize(before["args"]), task.deserialize(now["args"])
    except (LookupError, TypeError, ValueError):  # garbage, or of another release
        return False
    return bool({**before, "args": former} == {**now, "args": present})


async def _declare(
    session: AsyncSession, schedule: Schedule, stored: StoredSchedule | None, now: datetime
) -> None:
    wanted = definition_of(schedule)
    values = {"declared": wanted, "definition": wanted, "task": schedule.task.name}
    first: dict[str, Any] = {"next_tick": next_tick(schedule.trigger, now)}
    if stored is None:
        await schedule_rows.add(session, schedule.id, first | values)
    elif not agrees(stored, schedule):
        # If the trigger is the same, ticks that are due stay due.
        before = stored.definition.get("trigger") if isinstance(stored.definition, dict) else None
        moved = first if before != wanted["trigger"] else {}
        await schedule_rows.change(session, schedule.id, moved | values)
