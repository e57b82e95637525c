"""Finds queues that no process carries, late schedules and dead jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from itertools import groupby

from sqlalchemy.ext.asyncio import AsyncSession

from app.doctor import Finding
from app.jobs import Jobs, Schedules, StoredSchedule
from app.jobs.backends import ProcessState, QueueState

PAGE = 100


async def examine_all(
    session: AsyncSession, processes: list[ProcessState]
) -> AsyncIterator[Finding]:
    queues = await Jobs(session).queues()
    for finding in (*_not_carried(queues), *_to_know(queues)):
        yield finding
    schedules, last = Schedules(session), ""
    while page := await schedules.find(PAGE, after=last):
        last = page[-1].id
        for problem in filter(None, map(_of_schedule, page)):
            yield problem
    for finding in _of_processes(processes):
        yield finding


def _not_carried(queues: list[QueueState]) -> Iterator[Finding]:
    """One line for each back end."""
    left = sorted((each for each in queues if not each.processes), key=_backend)
    for backend, those in groupby(left, _backend):
        found = [each for each in those if backend or each.waiting or each.running]
        names = ", ".join(each.name for each in found)
        waiting = f"{_waiting(*found)} jobs wait in {names}"
        if backend:
            what = f"no process of {backend} lives, {waiting}"
            yield Finding("queues", what, "start one, as the Procfile says")
        elif found:
            yield Finding("queues", f"nothing carries a queue, {waiting}", "name it in QUEUES")


def _backend(queue: QueueState) -> str:
    return queue.backend or ""


def _waiting(*queues: QueueState) -> str:
    more = any(each.waiting_is_at_least for each in queues)
    return f"{sum(each.waiting for each in queues)}{'+' * more}"


def _to_know(queues: list[QueueState]) -> Iterator[Finding]:
    for each in queues:
        if each.paused_at:
            what = f"{each.name} is paused, {_waiting(each)} jobs wait"
            yield Finding("queues", what, f"jobs resume {each.name}", "note")
        if each.dead:
            dead = f"{each.dead}{'+' * each.dead_is_at_least}"
            what = f"{dead} jobs of the queue {each.name} are dead"
            see = f"jobs list --status dead --queue {each.name}"
            yield Finding("jobs", what, see, "note")


def _of_schedule(schedule: StoredSchedule) -> Finding | None:
    if schedule.problem:
        what = f"{schedule.id} can't run: {schedule.problem}"
        return Finding("schedules", what, "change it or delete it")
    if schedule.late:
        late = timedelta(seconds=round(schedule.late.total_seconds()))
        what = f"{schedule.id} is late by {late}"
        return Finding("schedules", what, "start what ticks, as the Procfile says")
    return None


def _of_processes(processes: list[ProcessState]) -> Iterator[Finding]:
    versions = sorted({str(each.version) for each in processes if each.alive})
    if len(versions) > 1:
        what = f"processes of several releases run: {', '.join(versions)}"
        yield Finding("processes", what, "in a deploy that is as it should be", "note")
