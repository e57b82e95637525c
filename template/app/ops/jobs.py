"""Pages that find jobs, show one, replay dead jobs, and cancel those that wait or run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Path, Query, Request, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from app.config import get_settings
from app.dependencies import DBSession, JobsDep
from app.jobs import JobFilter, JobPage, Jobs, Status, StoredJob
from app.jobs.backends import registry
from app.ops.page import done, render, router
from app.ops.text import jobs as counted
from app.schemas.jobs import CURSOR_PATTERN, WITHIN, cursor_of, place_of

PAGE = 50  # jobs
MOST = 100_000  # jobs of a status that are counted, and jobs that one press may change
PATIENCE = 1.0  # seconds after which a page shows the jobs that it has found so far
BATCH, BATCHES = 1000, 20  # one request changes at most so many jobs, a transaction for each batch
DONE = {"replay": "to run again", "cancel": "cancelled"}
CHANGED_BY = {"replay": JobFilter.to_replay, "cancel": JobFilter.to_cancel}

Action = Literal["replay", "cancel"]


def _none_if_blank(value: Any) -> Any:
    return value.strip() or None if isinstance(value, str) else value


def _in_utc(moment: datetime) -> datetime:
    """A browser's field for a time has no zone: it is taken as UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Text = Annotated[Annotated[str, Field(max_length=300)] | None, BeforeValidator(_none_if_blank)]
InTime = Annotated[datetime, AfterValidator(_in_utc), WITHIN]
Time = Annotated[InTime | None, BeforeValidator(_none_if_blank)]


class Wanted(BaseModel):
    """The filter in the page's address."""

    status: Annotated[Status | None, BeforeValidator(_none_if_blank)] = None
    task: Text = None
    queue: Text = None
    key: Text = None
    error: Text = None
    since: Time = None
    until: Time = None

    @property
    def filter(self) -> JobFilter:
        return JobFilter(**{name: getattr(self, name) for name in Wanted.model_fields})

    @property
    def query(self) -> Mapping[str, str]:
        return self._given(Wanted.model_fields)

    def _given(self, names: Iterable[str]) -> Mapping[str, str]:
        given = ((name, getattr(self, name)) for name in names)
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in given
            if value
        }


class Listed(Wanted):
    after: Annotated[str | None, Field(pattern=CURSOR_PATTERN)] = None


class Asked(Wanted):
    """The filter of a change of many jobs. It leaves out those made after the question."""

    before: Time = None

    @property
    def those(self) -> JobFilter:
        return replace(self.filter, until=self.before or self.until)

    @property
    def asked(self) -> Mapping[str, str]:
        return self._given(Asked.model_fields)


class Counted(Asked):
    most: int = Field(ge=1, le=MOST, description="jobs that were found")


routes = router("/jobs")


@routes.get("")
async def list_jobs(
    request: Request, wanted: Annotated[Listed, Query()], jobs: JobsDep
) -> Response:
    found = await _page(jobs, wanted)
    return render(
        request,
        "jobs.html",
        wanted=wanted,
        found=found.jobs,
        older=found.next and cursor_of(found.next),
        actions=[action for action, those in CHANGED_BY.items() if those(wanted.filter)],
        statuses=list(Status),
        tasks=sorted(registry()),
        alike=sorted(name for name in registry() if name.endswith(f".{wanted.task}")),
        queues=list(get_settings().queues),
    )


async def _page(jobs: Jobs, wanted: Listed) -> JobPage:
    """Ask the engine for pages, which may be short, until there are enough jobs or time is up."""
    found, place = list[StoredJob](), place_of(wanted.after) if wanted.after else None
    ends = monotonic() + PATIENCE
    while True:
        page = await jobs.find(wanted.filter, PAGE - len(found), after=place)
        found, place = found + page.jobs, page.next
        if place is None or len(found) == PAGE or monotonic() >= ends:
            return JobPage(found, place)


@routes.get("/all/{action}")
async def confirm(
    request: Request, action: Action, wanted: Annotated[Asked, Query()], jobs: JobsDep
) -> Response:
    """Ask, with the number of jobs. Jobs that are created from now on aren't among them."""
    those = await jobs.until_now(wanted.those)
    counts = [await jobs.count(each, MOST) for each in CHANGED_BY[action](those)]
    asked = wanted.model_copy(update={"before": those.until})
    return render(
        request,
        "confirm.html",
        action=action,
        wanted=asked,
        count=sum(counts),
        more=MOST in counts,
        most=min(sum(counts), MOST),
    )


@routes.post("/all/{action}")
async def change_all(
    request: Request,
    action: Action,
    wanted: Annotated[Counted, Query()],
    session: DBSession,
    jobs: JobsDep,
) -> Response:
    """Change no more jobs than were counted, so that a job that is dead again doesn't loop."""
    change = jobs.replay_some if action == "replay" else jobs.cancel_some
    changed = 0
    for _ in range(BATCHES):
        some = await change(wanted.those, min(BATCH, wanted.most - changed))
        await session.commit()
        changed += some
        if not some or changed >= wanted.most:
            notice = f"{counted(changed)} {DONE[action]}."
            return done(request, notice, "/ops/jobs", **wanted.query)
    notice = f"{counted(changed)} {DONE[action]} so far. These are left:"
    return done(request, notice, f"/ops/jobs/all/{action}", **wanted.asked)


@routes.get("/{job_id}")
async def show_job(request: Request, job_id: UUID, jobs: JobsDep) -> Response:
    return render(request, "job.html", job=await jobs.get(job_id))


@routes.post("/{job_id}/{action}")
async def change_job(
    request: Request,
    job_id: Annotated[UUID, Path()],
    action: Action,
    session: DBSession,
    jobs: JobsDep,
) -> Response:
    await (jobs.replay if action == "replay" else jobs.cancel)(job_id)
    await session.commit()
    return done(request, f"The job is {DONE[action]}.", f"/ops/jobs/{job_id}")
