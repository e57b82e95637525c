"""Finds what no process carries or knows, late schedules, and dead jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from itertools import groupby

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli.output import counted
from app.core.outages import MIGRATE
from app.doctor import Finding
from app.jobs import Jobs, ProcessState, QueueState, Schedules, StoredSchedule
from app.jobs.backends import WAITING, agrees
from app.tasks.schedules import SCHEDULES

PAGE = 100
AS_IT_SHOULD_BE = "in a deploy that is as it should be"


async def examine_all(
    session: AsyncSession, processes: list[ProcessState], *, newer: bool
) -> AsyncIterator[Finding]:
    """`newer`: the schema is of a newer release than this one."""
    alive = [each for each in processes if each.alive]
    versions = sorted({str(each.version) for each in alive})
    queues = await Jobs(session).queues()
    waiting = [(row.queue, row.task) for row in await session.execute(text(WAITING))]
    schedules, last = list[StoredSchedule](), ""
    while page := await Schedules(session).find(PAGE, after=last):
        last = page[-1].id
        schedules += page
    for finding in (
        *_not_carried(queues, {queue for queue, _ in waiting}, alive),
        *_not_known(waiting, alive),
        *_to_know(queues),
        *_of_schedules(schedules, in_deploy=newer or len(versions) > 1),
        *_of_processes(versions),
    ):
        yield finding


def _not_carried(
    queues: list[QueueState], named: set[str], alive: list[ProcessState]
) -> Iterator[Finding]:
    """One line for each back end. Jobs that wait have `named` their queues, also if due later."""
    hosted = {each.backend for each in alive}
    left = sorted((each for each in queues if not each.processes), key=_backend)
    for backend, those in groupby(left, _backend):
        found = [each for each in those if backend or each.running or each.name in named]
        names = ", ".join(each.name for each in found)
        waiting = f"{_wait(*found)} in {names}"
        if backend in hosted:
            what = f"no live process of {backend} carries a queue, {waiting}"
            yield Finding("queues", what, "give it this QUEUES, and restart it")
        elif backend:
            what = f"no process of {backend} lives, {waiting}"
            yield Finding("queues", what, "start one, as the Procfile says")
        elif found:
            what = f"nothing carries a queue that has jobs, {_waiting(*found)} due: {names}"
            yield Finding("queues", what, "name it in QUEUES")


def _backend(queue: QueueState) -> str:
    return queue.backend or ""


def _wait(*queues: QueueState) -> str:
    return counted(_waiting(*queues), "job waits", "jobs wait")


def _waiting(*queues: QueueState) -> str:
    more = any(each.waiting_is_at_least for each in queues)
    return f"{sum(each.waiting for each in queues)}{'+' * more}"


def _not_known(waiting: Sequence[tuple[str, str]], alive: list[ProcessState]) -> Iterator[Finding]:
    """A queue that no live process carries is a fault of its own."""
    carried = {queue for each in alive for queue in each.queues}
    known = {(queue, task) for each in alive for queue in each.queues for task in each.tasks}
    for queue, task in sorted({*waiting} - known):
        if queue in carried:
            what = f"jobs wait in {queue}, and no live process that carries it knows {task}"
            todo = f"deploy a release that has the task, or jobs cancel --task {task}"
            yield Finding("jobs", what, todo)


def _to_know(queues: list[QueueState]) -> Iterator[Finding]:
    for each in queues:
        if each.paused_at:
            what = f"{each.name} is paused, {_wait(each)}"
            yield Finding("queues", what, f"jobs resume {each.name}", "note")
        if each.dead:
            dead, of = f"{each.dead}{'+' * each.dead_is_at_least}", f"of the queue {each.name}"
            what = counted(dead, f"job {of} is dead", f"jobs {of} are dead")
            see = f"jobs list --status dead --queue {each.name}"
            yield Finding("jobs", what, see, "note")


def _of_schedules(stored: list[StoredSchedule], *, in_deploy: bool) -> Iterator[Finding]:
    if undone := _not_as_declared(stored):
        what = f"the table doesn't have what the code declares: {', '.join(sorted(undone))}"
        if in_deploy:  # the schedules of a newer release, which this one's migrate would delete
            todo = f"{AS_IT_SHOULD_BE}; after going back, migrate with this release"
            yield Finding("schedules", what, todo, "note")
        else:
            yield Finding("schedules", what, MIGRATE)
    for each in stored:
        if each.problem and each.id not in undone:
            todo = "change it or delete it" if each.declared is None else "change it"
            yield Finding("schedules", f"{each.id} can't run: {each.problem}", todo)
        elif each.late:
            late = timedelta(seconds=round(each.late.total_seconds()))
            what = f"{each.id} is late by {late}"
            yield Finding("schedules", what, "start all processes of the Procfile")


def _not_as_declared(stored: list[StoredSchedule]) -> set[str]:
    """Those that `app.migrate` would add, change or delete."""
    code = {each.id: each for each in SCHEDULES}
    rows = {each.id: each for each in stored if each.declared is not None}
    same = {name for name in code.keys() & rows.keys() if agrees(rows[name], code[name])}
    return (code.keys() | rows.keys()) - same


def _of_processes(versions: list[str]) -> Iterator[Finding]:
    if len(versions) > 1:
        what = f"processes of several releases run: {', '.join(versions)}"
        yield Finding("processes", what, AS_IT_SHOULD_BE, "note")
