"""The state of queues and processes, as operators see it. Counts read the table's indexes.

A count ends at MOST, so that it costs the same at a million rows as at ten thousand.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Executable, Select, String, func, literal, select, text, union_all, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import get_settings
from app.jobs.processes import FORGOTTEN, KINDS, SILENT, tasks_of
from app.jobs.table import database_now, db_time, jobs, processes, queues, upsert

MOST = 10_000  # jobs of a queue that are counted as waiting; dead ones that are counted in all
KINDS_AT_ONCE = 400  # in one statement: SQLite takes at most 500 SELECTs in a union

WAITS = text("status = 'pending' AND crashes = 0")
CRASHED = text("status = 'pending' AND crashes > 0")
RUNS, DEAD = text("status = 'running'"), text("status = 'dead'")
DUE = jobs.c.run_at <= db_time(0)


@dataclass(frozen=True)
class QueueState:
    """`waiting` counts due jobs; `oldest` is when the first fell due, `age` how long ago.

    If `..._is_at_least` is set, the count ended early and there may be more. `processes` counts the
    live processes that carry the queue.
    """

    name: str
    backend: str | None
    waiting: int
    waiting_is_at_least: bool
    oldest: datetime | None
    age: timedelta | None
    running: int
    dead: int
    dead_is_at_least: bool
    paused_at: datetime | None
    processes: int


@dataclass(frozen=True)
class ProcessState:
    """`busy` counts the slots in use when it was last seen. Without `backend` it hosts no queue."""

    id: UUID
    host: str
    pid: int
    backend: str | None
    version: str | None
    queues: list[str]
    tasks: list[str]  # that it knows
    slots: int
    busy: int
    started_at: datetime
    seen_at: datetime
    alive: bool


@dataclass
class _Counts:
    """What rows say of a queue, by kind: `waiting`, `running`, `dead` or `paused`."""

    numbers: Counter[str] = field(default_factory=Counter)
    since: dict[str, datetime] = field(default_factory=dict)  # the earliest

    def add(self, kind: str, number: int, since: datetime | None) -> None:
        self.numbers[kind] += number
        if since:
            self.since[kind] = min(since, self.since.get(kind, since))


async def queue_states(session: AsyncSession) -> list[QueueState]:
    """The queues in QUEUES, and those that only rows name."""
    counts = await _count(session)
    now = await database_now(session)
    live = [each for each in await process_states(session) if each.alive]
    carried, dead = get_settings().queues, sum(each.numbers["dead"] for each in counts.values())
    names = [*carried, *sorted(set(counts) - set(carried))]
    return [
        QueueState(
            name=name,
            backend=carried.get(name),
            waiting=min(found.numbers["waiting"], MOST),
            waiting_is_at_least=found.numbers["waiting"] > MOST,
            oldest=found.since.get("waiting"),
            age=now - found.since["waiting"] if "waiting" in found.since else None,
            running=found.numbers["running"],
            dead=found.numbers["dead"],
            dead_is_at_least=dead > MOST,
            paused_at=found.since.get("paused"),
            processes=sum(name in each.queues for each in live),
        )
        for name, found in ((name, counts[name]) for name in names)
    ]


async def process_states(session: AsyncSession) -> list[ProcessState]:
    """The processes that were seen in the last five minutes, alive or not."""
    alive = (processes.c.seen_at > db_time(-SILENT)).label("alive")
    shown = [processes.c[each] for each in ProcessState.__annotations__ if each != "alive"]
    seen = select(*shown, alive).where(processes.c.seen_at > db_time(-FORGOTTEN))
    rows = await session.execute(seen.order_by(processes.c.host, processes.c.pid))
    return [_process(**row._mapping) for row in rows]


def _process(**row: Any) -> ProcessState:
    carries = row["queues"] if isinstance(row["queues"], list) else []
    texts = [each for each in carries if isinstance(each, str)]
    return ProcessState(**{**row, "queues": texts, "tasks": list(tasks_of(row["tasks"]))})


async def _count(session: AsyncSession) -> defaultdict[str, _Counts]:
    kinds, others = (await session.execute(_KINDS)).all(), [_CRASHED, _RUNNING, _DEAD, _PAUSED]
    found: defaultdict[str, _Counts] = defaultdict(_Counts)
    while kinds or others:
        tasks: defaultdict[str, list[str]] = defaultdict(list)
        for kind in kinds[:KINDS_AT_ONCE]:
            tasks[kind.queue].append(kind.task)
        waiting = [_waiting(queue, names) for queue, names in tasks.items()]
        for row in await session.execute(union_all(*waiting, *others)):
            found[str(row.queue)].add(row.kind, row.number, row.since)
        kinds, others = kinds[KINDS_AT_ONCE:], []
    return found


def _waiting(queue: str, tasks: Sequence[str]) -> Select[Any]:
    """Count task by task, because the index has the tasks before the times."""
    lanes = [(WAITS, jobs.c.queue == queue, jobs.c.task == task, DUE) for task in tasks]
    due = union_all(*(select(jobs.c.run_at).where(*lane) for lane in lanes)).limit(MOST + 1)
    first = union_all(*(select(func.min(jobs.c.run_at).label("at")).where(*lane) for lane in lanes))
    number = select(func.count()).select_from(due.subquery()).scalar_subquery()
    oldest = select(func.min(first.subquery().c.at)).scalar_subquery()
    return _row(literal(queue), "waiting", number, oldest)


def _of_few(kind: str, found: Select[Any]) -> Select[Any]:
    each = found.subquery()
    return _row(each.c.queue, kind, func.count(), func.min(each.c.run_at)).group_by(each.c.queue)


def _row(queue: Any, kind: str, number: Any, since: Any) -> Select[Any]:
    return select(
        queue.label("queue"),
        literal(kind).label("kind"),
        number.label("number"),
        since.label("since"),
    )


_KINDS = text(KINDS).columns(queue=String, task=String)
_LANE = select(jobs.c.queue, jobs.c.run_at)
# In the order of the index for them: else SQLite reads all waiting jobs.
_IN_ORDER = _LANE.order_by(jobs.c.queue, jobs.c.run_at)
_CRASHED = _of_few("waiting", _IN_ORDER.where(CRASHED, DUE).limit(MOST))
_RUNNING = _of_few("running", _LANE.where(RUNS))
_DEAD = _of_few("dead", _LANE.where(DEAD).order_by(jobs.c.finished_at.desc()).limit(MOST + 1))
_PAUSED = _row(queues.c.name, "paused", literal(1), queues.c.paused_at).where(
    queues.c.paused_at.is_not(None)
)


def pausing(queue: str, *, paused: bool) -> Executable:
    """Returns since when it is paused. A pause that has begun keeps its time."""
    if not paused:
        ended = update(queues).where(queues.c.name == queue).values(paused_at=None)
        return ended.returning(queues.c.paused_at)
    inserted = upsert(queues).values(name=queue, paused_at=db_time(0))
    since = {"paused_at": func.coalesce(queues.c.paused_at, db_time(0))}
    begun = inserted.on_conflict_do_update(index_elements=["name"], set_=since)
    returned: Executable = begun.returning(queues.c.paused_at)
    return returned
