"""POST /orders, then a worker that runs what was ordered; the service and the control in turn."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.load import Load, post_orders
from bench.progress import say
from bench.result import Result, milliseconds, ratio
from bench.subject import Subject, cpu, wait_for

ROUNDS = 5
SECONDS = 3
DATABASES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
PROCESSED = "SELECT count(*) FROM orders WHERE status = 'processed'"


@dataclass(frozen=True)
class Round:
    load: Load
    cpu_request: float  # milliseconds
    jobs_per_second: float
    cpu_job: float  # milliseconds


def measure(backend: str, folder: Path, database: str) -> Iterator[Result]:
    title = "ARQ" if backend == "arq" else "Celery"
    case = f"{title}, {DATABASES[database]}"
    subjects = [
        Subject.service(folder, database),
        Subject.control(backend, folder, database),
    ]
    rounds: dict[str, list[Round]] = defaultdict(list)
    for number in range(ROUNDS):
        for subject in subjects if number % 2 else reversed(subjects):
            done = one_round(subject)
            rounds[subject.name].append(done)
            say(
                f"{case}, {subject.name} {number + 1}/{ROUNDS}: "
                f"{done.load.per_second:.0f} req/s, p99 {done.load.p99:.0f} ms, "
                f"{done.cpu_request:.2f} ms CPU each; "
                f"{done.jobs_per_second:.0f} jobs/s, {done.cpu_job:.2f} ms CPU each"
            )
    yield from results(case, rounds["service"], rounds["control"])


def one_round(subject: Subject) -> Round:
    subject.empty()
    with subject.running("api") as api:
        post_orders(subject.port, 1)
        subject.empty()
        before = cpu(api)
        load = post_orders(subject.port, SECONDS)
        cpu_request = (cpu(api) - before) / load.requests * 1000
        jobs_per_second, cpu_job = drain(subject)
    return Round(load, cpu_request, jobs_per_second, cpu_job)


def drain(subject: Subject) -> tuple[float, float]:
    """Jobs a second and milliseconds of CPU a job, without the start of the worker."""
    all_orders = subject.count("SELECT count(*) FROM orders")
    with subject.running("worker") as worker:
        wait_for("started", lambda: subject.count(PROCESSED) > all_orders / 10)
        first, began, before = subject.count(PROCESSED), time.monotonic(), cpu(worker)
        wait_for("drained", lambda: subject.count(PROCESSED) >= all_orders)
        seconds, jobs = time.monotonic() - began, all_orders - first
        return jobs / seconds, (cpu(worker) - before) / jobs * 1000


def results(case: str, service: list[Round], control: list[Round]) -> Iterator[Result]:
    both = service, control
    posted = [[each.load.per_second for each in rounds] for rounds in both]
    yield ratio("POST /orders, req/s", case, posted, 1)
    p99 = [sorted(each.load.p99 for each in rounds) for rounds in both]
    found = f"{p99[0][len(p99[0]) // 2]:.0f} ms; control {p99[1][len(p99[1]) // 2]:.0f} ms"
    limited = case.endswith("SQLite")
    reached = p99[0][len(p99[0]) // 2] <= 100 if limited else None
    yield Result("POST /orders, p99", case, found, "<= 100 ms" if limited else "", reached)
    run = [[each.jobs_per_second for each in rounds] for rounds in both]
    yield ratio("process_order, jobs/s", case, run, 0.8)
    for what in ("request", "job"):
        used = [[getattr(each, f"cpu_{what}") for each in rounds] for rounds in both]
        found = f"{milliseconds(used[0])}; control {milliseconds(used[1])}"
        yield Result(f"CPU per {what}", case, found)
