"""The table `schedules`: what deploys and operators do with its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypedDict, Unpack

from pydantic import JsonValue, ValidationError
from sqlalchemy import Select, String, case, cast, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import bound_contextvars

from app.jobs.contract import Task, UnknownTaskError, find_task
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
from app.jobs.table import MAX_COUNT, clock, database_now, schedules
from app.jobs.triggers import Trigger, next_tick

# Somebody may have written JSON's null by hand.
BY_OPERATOR = schedules.c.declared.is_(None) | (cast(schedules.c.declared, String) == "null")


class Changes(TypedDict, total=False):
    """The parts of a schedule's definition that are to be replaced."""

    trigger: Trigger
    args: dict[str, JsonValue]
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
        found = select(schedules).order_by(schedules.c.id).limit(limit)
        if after is not None:
            found = found.where(schedules.c.id > after)
        return await read(self._session, found)

    async def get(self, schedule_id: str) -> StoredSchedule:
        """Raises ScheduleNotFoundError."""
        found = await read(self._session, select(schedules).where(schedules.c.id == schedule_id))
        if not found:
            raise ScheduleNotFoundError(schedule_id)
        return found[0]

    async def create(
        self, schedule_id: str, task: str, wanted: Definition, *, paused: bool = False
    ) -> StoredSchedule:
        """Raises InvalidScheduleError. Raises ScheduleConflictError if the id is taken."""
        values = {
            "id": schedule_id,
            "definition": _checked(task, wanted),
            "task": task,
            "paused": paused,
            "next_tick": await self._first_tick(wanted.trigger),
        }
        try:
            async with self._session.begin_nested():
                await self._session.execute(insert(schedules).values(values))
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
        """Change a schedule. Ticks that it missed while it was paused don't run later.

        Raises ScheduleNotFoundError, InvalidScheduleError. Raises ScheduleConflictError if somebody
        else has changed the schedule since this revision.
        """
        schedule = await self.get(schedule_id)
        again = schedules.c.revision >= MAX_COUNT
        values: dict[str, Any] = {"revision": case((again, 1), else_=schedules.c.revision + 1)}
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
        as_read = schedules.c.id == schedule_id, schedules.c.revision == revision
        changed = update(schedules).where(*as_read).values(values).returning(schedules.c.id)
        if (await self._session.execute(changed)).first() is None:
            raise ScheduleConflictError("it has been changed since: get it, and its revision")
        return await self.get(schedule_id)

    async def delete(self, schedule_id: str) -> None:
        """Raises ScheduleNotFoundError, or ScheduleConflictError if the code declares it."""
        own = schedules.c.id == schedule_id, BY_OPERATOR
        deleted = delete(schedules).where(*own).returning(schedules.c.id)
        if (await self._session.execute(deleted)).first() is None:
            await self.get(schedule_id)
            raise ScheduleConflictError("declared in code: pause it")

    async def run(self, schedule_id: str) -> Job[Any]:
        """Submit a job beside its ticks. Raises ScheduleNotFoundError, ScheduleConflictError."""
        schedule = await self.get(schedule_id)
        task = _known(schedule.task)
        with _or_broken(), bound_contextvars(schedule_id=schedule.id):
            args = task.check(schedule.read().args)
            return await submit_named(self._session, task, args)

    async def _first_tick(self, trigger: Trigger) -> datetime:
        first = next_tick(trigger, await database_now(self._session))
        with _part("trigger"):
            if first is None:
                raise ValueError("never fires: it is over")
        return first


def _checked(name: str, wanted: Definition) -> dict[str, Any]:
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


async def read(session: AsyncSession, found: Select[Any]) -> list[StoredSchedule]:
    rows = await session.execute(found.add_columns(clock(0).label("now")))
    return [StoredSchedule.of(**row._mapping) for row in rows]


async def reconcile(session: AsyncSession, declared: Sequence[Schedule]) -> None:
    """Add, change and delete schedules until the table has what the code declares.

    A pause stays, and a schedule that an operator made. What an operator changed stays until the
    code declares something else. Raises ValueError when two schedules have one id.
    """
    ids = Counter(schedule.id for schedule in declared)
    if twice := [schedule_id for schedule_id, count in ids.items() if count > 1]:
        raise ValueError(f"two schedules are named {twice[0]!r}")
    known = select(schedules).where(schedules.c.id.in_(ids)).with_for_update()
    stored = {each.id: each for each in await read(session, known)}
    now = await database_now(session)
    for schedule in declared:
        await _declare(session, schedule, stored.get(schedule.id), now)
    gone = ~BY_OPERATOR, schedules.c.id.not_in(ids)
    await session.execute(delete(schedules).where(*gone))


def agrees(stored: StoredSchedule, schedule: Schedule) -> bool:
    """Whether the code declares what it last did. A set has another order in each process."""
    before: Any = stored.declared
    now, task = definition_of(schedule), schedule.task
    if before == now:
        return True
    try:
        former, present = task.load(before["args"]), task.load(now["args"])
    except (LookupError, TypeError, ValueError):  # garbage, or of another release
        return False
    return bool({**before, "args": former} == {**now, "args": present})


async def _declare(
    session: AsyncSession, schedule: Schedule, stored: StoredSchedule | None, now: datetime
) -> None:
    definition = definition_of(schedule)
    values = {"declared": definition, "definition": definition, "task": schedule.task.name}
    first = {"next_tick": next_tick(schedule.trigger, now)}
    if stored is None:
        await session.execute(insert(schedules).values(id=schedule.id, **values, **first))
    elif not agrees(stored, schedule):
        # If the trigger is the same, ticks that are due stay due.
        before = stored.definition.get("trigger") if isinstance(stored.definition, dict) else None
        moved = first if before != definition["trigger"] else {}
        again = {"revision": min(stored.revision, MAX_COUNT - 1) + 1, **values, **moved}
        await session.execute(update(schedules).where(schedules.c.id == schedule.id).values(again))
