"""Shows, replays and cancels jobs: one by one, or all that a filter finds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli import output
from app.cli.running import After, Error, Json, Since, Until, Yes, confirm, doubt, run
from app.jobs import JobFilter, JobPage, Jobs, JobStateError, Status, StoredJob, Try
from app.schemas.jobs import ChangedOut, JobDetails, JobListed, cursor_of, place_of
from app.schemas.response import ApiResponse, Page

BATCH = 1000
COUNTED = 100_000  # jobs of a status, at most


Id = Annotated[UUID, typer.Argument(metavar="ID")]
Ids = Annotated[list[UUID] | None, typer.Argument(metavar="ID")]
OfStatus = Annotated[Status | None, typer.Option("--status")]
OfTask = Annotated[str | None, typer.Option("--task", help="Such as orders.process_order.")]
OfQueue = Annotated[str | None, typer.Option("--queue")]
OfKey = Annotated[str | None, typer.Option("--key", help="What submit was given as its key.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1000)]
Every = Annotated[bool, typer.Option("--all", help="All of them, without a filter.")]


def list_jobs(
    status: OfStatus = None,
    task: OfTask = None,
    queue: OfQueue = None,
    key: OfKey = None,
    since: Since = None,
    until: Until = None,
    error: Error = None,
    limit: Limit = 50,
    after: After = None,
    as_json: Json = False,
) -> None:
    """Show jobs, the newest first."""
    wanted = JobFilter(status, task, queue, key, since, until, error)
    page = run(lambda session: _page(Jobs(session), wanted, limit, after))
    following = cursor_of(page.next) if page.next else None
    if as_json:
        listed = [JobListed.of(job) for job in page.jobs]
        output.show_json(Page[JobListed](data=listed, next=following))
        return
    columns = "id", "task", "queue", "status", "tries", "created", "next", "error"
    output.show_table(columns, map(_row, page.jobs), none="no such jobs")
    if following:
        output.complain(f"there are more: --after {following}")
    if not page.jobs:
        doubt(task)


async def _page(jobs: Jobs, wanted: JobFilter, limit: int, after: str | None) -> JobPage:
    """Ask for pages until there are enough jobs, because the engine's pages may be short."""
    found, place = list[StoredJob](), place_of(after) if after else None
    while True:
        page = await jobs.find(wanted, limit - len(found), after=place)
        found, place = found + page.jobs, page.next
        if place is None or len(found) == limit:
            return JobPage(found, place)


def _row(job: StoredJob) -> tuple[object, ...]:
    tries = f"{job.attempts}/{job.max_attempts}"
    following = job.run_at if job.status == Status.PENDING else None
    return job.id, job.task, job.queue, job.status, tries, job.created_at, following, job.error


def show(job_id: Id, as_json: Json = False) -> None:
    """Show one job: arguments, tries, what submitted it."""
    job = run(lambda session: Jobs(session).get(job_id))
    details = JobDetails.of(job)
    if as_json:
        output.show_json(ApiResponse(data=details))
        return
    shown = details.model_dump() | {"tries": "\n".join(map(_try, details.tries))}
    if details.status == Status.PENDING:
        shown["next"] = shown.pop("run_at")
    output.show_pairs({name: value for name, value in shown.items() if value not in (None, "", {})})


def _try(one: Try) -> str:
    """A try that was cancelled or handed back looks like one that succeeded: it has no error."""
    began, ended = output.text_of(one.started_at), output.text_of(one.ended_at)
    tried = f"{one.number}: {began} to {ended or 'now'} on {one.worker or '?'}"
    how = (one.error or "").splitlines()[:1] if ended else ["runs"]
    return ": ".join([tried, *how])


@dataclass(frozen=True)
class Change:
    """A change of one job, or of a batch of jobs."""

    done: str
    those: Callable[[JobFilter], list[JobFilter]]
    to_one: Callable[[Jobs, UUID], Awaitable[None]]
    to_some: Callable[[Jobs, JobFilter, int], Awaitable[int]]


@dataclass(frozen=True)
class Count:
    number: int
    is_at_least: bool = False  # counting stopped at COUNTED

    def __str__(self) -> str:
        return f"{self.number}{' or more' * self.is_at_least}"


@dataclass(frozen=True)
class Changed:
    found: int
    changed: int
    left: Count


REPLAY = Change("replayed", JobFilter.to_replay, Jobs.replay, Jobs.replay_some)
CANCEL = Change("cancelled", JobFilter.to_cancel, Jobs.cancel, Jobs.cancel_some)


def replay(
    ids: Ids = None,
    task: OfTask = None,
    queue: OfQueue = None,
    key: OfKey = None,
    since: Since = None,
    until: Until = None,
    error: Error = None,
    every: Every = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Run dead jobs again, with all their tries.

    Give ids: all of these jobs change, or none. Or give options: the jobs change in batches.
    """
    wanted = JobFilter(None, task, queue, key, since, until, error)
    _report(_changed(REPLAY, ids or [], wanted, every=every, yes=yes), REPLAY, as_json)


def cancel(
    ids: Ids = None,
    status: OfStatus = None,
    task: OfTask = None,
    queue: OfQueue = None,
    key: OfKey = None,
    since: Since = None,
    until: Until = None,
    error: Error = None,
    every: Every = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """End jobs that wait or run.

    Give ids: all of these jobs change, or none. Or give options: the jobs change in batches.
    """
    wanted = JobFilter(status, task, queue, key, since, until, error)
    if not wanted.to_cancel():
        raise typer.BadParameter("--status must be pending or running")
    _report(_changed(CANCEL, ids or [], wanted, every=every, yes=yes), CANCEL, as_json)


def _changed(
    change: Change, ids: list[UUID], wanted: JobFilter, *, every: bool, yes: bool
) -> Changed:
    if bool(ids) == (every or wanted != JobFilter()):
        raise typer.BadParameter("give ids, or options that name jobs; --all means every one")
    if ids:
        each_once = [*dict.fromkeys(ids)]
        run(lambda session: _these(session, change, each_once))
        return Changed(len(each_once), len(each_once), Count(0))
    each, found = run(lambda session: _found(session, change, wanted))
    if found.number:
        these = output.counted(found, "job is", "jobs are")
        confirm(f"{these} to be {change.done}. Go on?", yes=yes)
    else:
        doubt(wanted.task)
    return run(lambda session: _in_batches(session, change, each, found.number))


async def _these(session: AsyncSession, change: Change, ids: list[UUID]) -> None:
    """Change all of them or none."""
    for job_id in ids:
        try:
            await change.to_one(Jobs(session), job_id)
        except JobStateError as error:
            raise JobStateError(f"{job_id}: {error}; nothing was changed") from None


async def _found(
    session: AsyncSession, change: Change, wanted: JobFilter
) -> tuple[list[JobFilter], Count]:
    """What is to change, and how many. Jobs that are created from now on aren't among them."""
    each = change.those(await Jobs(session).until_now(wanted))
    return each, await _count(session, each)


async def _count(session: AsyncSession, wanted: list[JobFilter]) -> Count:
    counts = [await Jobs(session).count(each, COUNTED) for each in wanted]
    return Count(sum(counts), COUNTED in counts)


async def _in_batches(
    session: AsyncSession, change: Change, wanted: list[JobFilter], found: int
) -> Changed:
    """Change no more jobs than were counted, so that a job that is dead again doesn't loop."""
    changed, jobs = 0, Jobs(session)
    try:
        with output.progress(change.done, found) as advance:
            for each in wanted:
                while number := await change.to_some(jobs, each, min(BATCH, found - changed)):
                    await session.commit()
                    changed += number
                    advance(number)
        return Changed(found, changed, await _count(session, wanted))
    except BaseException:  # Ctrl-C, too. A commit whose answer was lost may have changed more
        of = output.counted(found, "job", "jobs")
        output.complain(f"{change.done} at least {changed} of {of}, then stopped")
        raise


def _report(changed: Changed, change: Change, as_json: bool) -> None:
    if as_json:
        numbers = {**vars(changed), "left": changed.left.number}
        output.show_json(ApiResponse(data=ChangedOut(**numbers)))
        return
    left = output.counted(changed.left, "such job is left", "such jobs are left")
    done = f"{change.done} {output.counted(changed.changed, 'job', 'jobs')}"
    output.say(f"{done}; {left}" if changed.left.number else done)
