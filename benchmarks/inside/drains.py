"""Measures how fast a worker runs the jobs that wait at its start: the service's, then others'.

The last 90 % of the jobs are timed, so that the rates don't contain the start of a process.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.others import Control, Peer
from bench.processes import cpu, wait_for
from bench.progress import say
from bench.result import Result, milliseconds, ratio
from bench.servers import TITLES
from bench.sizes import JOBS, ROUNDS
from bench.subject import Subject

NAMES = {"arq": "ARQ", "celery": "Celery", "background": "in the process"}
# The subjects to compare with, and how many times as fast the service should be. None: no target.
BESIDE: dict[tuple[str, str], dict[str, float | None]] = {
    ("arq", "noops"): {"control": None, "pgqueuer": 1.2, "oban": 1.2},
    ("arq", "orders"): {"control": 1},
    ("celery", "noops"): {"control": 0.9},
    ("celery", "orders"): {"control": 0.85},
    ("background", "noops"): {"pgqueuer": 1.2, "oban": 1.2},
    ("background", "orders"): {"procrastinate": 2, "pgqueuer": 0.95, "oban": 0.95},
}
ON_SQLITE = {"arq": 0.9, "celery": 0.6}
UPDATES = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'jobs'"


@dataclass(frozen=True)
class Drain:
    per_second: float
    cpu: float  # the worker's milliseconds for each job
    updates: float  # of each job's row


def measure(backend: str, what: str, folder: Path) -> Iterator[Result]:
    for database in ("postgresql", "postgresql-fsync"):
        beside = dict(BESIDE[backend, what])
        if database == "postgresql-fsync" and beside.get("control", 0) is None:
            del beside["control"]  # plain ARQ's no-ops don't use the database
        yield from compared(backend, what, folder / database, database, beside)
    if what == "orders" and backend in ON_SQLITE:
        beside = {"control": ON_SQLITE[backend]}
        yield from compared(backend, what, folder / "sqlite", "sqlite", beside)


def compared(
    backend: str, what: str, folder: Path, database: str, beside: dict[str, float | None]
) -> Iterator[Result]:
    service = Subject("service", backend, folder, database)
    others = [other(name, backend, folder, database) for name in beside]
    case = f"{NAMES[backend]}, {TITLES[database]}"
    found = in_turn([service, *others], what, case)
    ours = found[service.title]
    for subject, least in zip(others, beside.values(), strict=True):
        both = [[each.per_second for each in of] for of in (ours, found[subject.title])]
        yield ratio(f"{what}/s : {subject.title}", case, both, least)
    used = [f"{name} {milliseconds([each.cpu for each in of])}" for name, of in found.items()]
    yield Result(f"CPU of the worker, {what}", case, "; ".join(used))
    if database != "sqlite":
        updates = median(each.updates for each in ours)
        measured = f"updates of a job's row, {what}"
        yield Result(measured, case, f"{updates:.2f}", "<= 2", round(updates, 1) <= 2)


def other(name: str, backend: str, folder: Path, database: str) -> Subject:
    if name == "control":
        return Control(backend, folder, database)
    return Peer(name, folder, database)


def in_turn(subjects: Sequence[Subject], what: str, case: str) -> dict[str, list[Drain]]:
    found: dict[str, list[Drain]] = defaultdict(list)
    # Celery gets fewer jobs, because its start takes long, and so does sending tasks to it.
    jobs = JOBS[what] // (2 if subjects[0].backend == "celery" else 1)
    for number in range(ROUNDS):
        for subject in subjects if number % 2 else subjects[::-1]:
            subject.empty()
            subject.submit(what, jobs)
            subject.settle()
            done = drain(subject, what)
            found[subject.title].append(done)
            rate = f"{done.per_second:.0f} {what}/s, {done.cpu:.2f} ms CPU each"
            say(f"{case}, {subject.title} {number + 1}/{ROUNDS}: {rate}")
    return {subject.title: found[subject.title] for subject in subjects}


def drain(subject: Subject, what: str) -> Drain:
    number, updated = subject.left(what), updates(subject)
    with subject.running(subject.worker) as worker:
        wait_for("started", lambda: subject.left(what) < number * 0.9, worker)
        left, began, before = subject.left(what), time.monotonic(), cpu(worker)
        wait_for("drained", lambda: subject.left(what) == 0, worker)
        seconds, used = time.monotonic() - began, cpu(worker) - before
    jobs = max(left, 1)
    return Drain(jobs / seconds, used / jobs * 1000, (updates(subject) - updated) / number)


def updates(subject: Subject) -> int:
    """How often rows of `jobs` were updated. PostgreSQL's processes report it when they end."""
    if type(subject) is not Subject or subject.database == "sqlite":
        return 0
    return subject.count(UPDATES)
