"""Shows queues, schedules and processes, and pauses or resumes the first two."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli import output
from app.cli.running import Json, run
from app.jobs import Jobs, Schedules, StoredSchedule
from app.schemas.jobs import JobAccepted
from app.schemas.queues import ProcessOut, QueueOut
from app.schemas.response import ApiResponse, Page
from app.schemas.schedules import ScheduleOut

PAGE = 1000

ScheduleId = Annotated[str, typer.Argument(metavar="SCHEDULE")]
Queue = Annotated[str | None, typer.Argument(metavar="QUEUE")]
OfSchedule = Annotated[str | None, typer.Option("--schedule", metavar="ID", help="Not a queue.")]


def queues(as_json: Json = False) -> None:
    """Show how many jobs of each queue are due, run and are dead, and what carries the queue."""
    found = [QueueOut.of(each) for each in run(lambda session: Jobs(session).queues())]
    if as_json:
        output.show_json(ApiResponse(data=found))
        return
    columns = "queue", "back end", "waiting", "oldest", "running", "dead", "processes", "paused"
    output.show_table(columns, map(_of_queue, found), none="no queues")


def _of_queue(queue: QueueOut) -> tuple[object, ...]:
    oldest = queue.oldest_seconds
    return (
        queue.queue,
        queue.backend or "none",
        f"{queue.waiting}{'+' * queue.waiting_is_at_least}",
        None if oldest is None else timedelta(seconds=oldest),
        queue.running,
        f"{queue.dead}{'+' * queue.dead_is_at_least}",
        queue.processes or "none",
        queue.paused_at,
    )


def pause(queue: Queue = None, schedule: OfSchedule = None, as_json: Json = False) -> None:
    """Stop a queue or a schedule until it is resumed.

    Jobs that run go on.
    """
    _set(queue, schedule, as_json, paused=True)


def resume(queue: Queue = None, schedule: OfSchedule = None, as_json: Json = False) -> None:
    """Let a paused queue or schedule go on.

    Ticks that were due meanwhile don't run later.
    """
    _set(queue, schedule, as_json, paused=False)


def _set(queue: str | None, schedule: str | None, as_json: bool, *, paused: bool) -> None:
    now: QueueOut | ScheduleOut
    if queue is not None and schedule is None:
        now = run(lambda session: _set_queue(session, queue, paused=paused))
    elif schedule is not None and queue is None:
        now = run(lambda session: _set_schedule(session, schedule, paused=paused))
    else:
        raise typer.BadParameter("name a queue, or a schedule by --schedule ID")
    if as_json:
        output.show_json(ApiResponse(data=now))
    else:
        output.say(f"{queue or schedule} is {'paused' if paused else 'resumed'}")


async def _set_queue(session: AsyncSession, name: str, *, paused: bool) -> QueueOut:
    jobs = Jobs(session)
    return QueueOut.of(await (jobs.pause if paused else jobs.resume)(name))


async def _set_schedule(session: AsyncSession, schedule_id: str, *, paused: bool) -> ScheduleOut:
    stored = await Schedules(session).get(schedule_id)
    changed = await Schedules(session).change(schedule_id, stored.revision, paused=paused)
    return ScheduleOut.of(changed)


def schedules(as_json: Json = False) -> None:
    """Show the next three ticks of each schedule, and its late and missed ticks."""
    found = run(_schedules)
    if as_json:
        listed = [ScheduleOut.of(each) for each in found]
        output.show_json(Page[ScheduleOut](data=listed, next=None))
        return
    columns = "id", "task", "next", "late", "last", "missed since", "state"
    output.show_table(columns, map(_of_schedule, found), none="no schedules")


async def _schedules(session: AsyncSession) -> list[StoredSchedule]:
    found = list[StoredSchedule]()
    while page := await Schedules(session).find(PAGE, after=found[-1].id if found else None):
        found += page
    return found


def _of_schedule(schedule: StoredSchedule) -> tuple[object, ...]:
    state = schedule.problem or ("paused" if schedule.paused else "")
    ticks = schedule.next_tick, *schedule.upcoming()[1:]
    following = "" if schedule.paused else ", ".join(map(output.text_of, ticks))
    missed = schedule.missed_since
    late, last = schedule.late, schedule.last_tick
    return schedule.id, schedule.task, following, late, last, missed, state


def run_schedule(schedule_id: ScheduleId, as_json: Json = False) -> None:
    """Submit a job of a schedule now.

    The schedule may be paused. Its ticks don't change.
    """
    job = run(lambda session: Schedules(session).run(schedule_id))
    if as_json:
        output.show_json(ApiResponse(data=JobAccepted(job_id=job.id)))
    else:
        output.say(str(job.id))


def processes(as_json: Json = False) -> None:
    """Show the processes that were seen in the last five minutes."""
    found = [ProcessOut.of(each) for each in run(lambda session: Jobs(session).processes())]
    if as_json:
        output.show_json(ApiResponse(data=found))
        return
    columns = "host", "pid", "back end", "version", "busy", "started", "seen", "alive", "queues"
    output.show_table(columns, map(_of_process, found), none="no processes")


def _of_process(process: ProcessOut) -> tuple[object, ...]:
    return (
        process.host,
        process.pid,
        process.backend,
        process.version,
        f"{process.busy}/{process.slots}",
        process.started_at,
        process.seen_at,
        process.alive,
        ", ".join(map(str, process.queues)),
    )
