"""Measures POST /orders with `wrk`, on the service and the control in turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from bench.drains import NAMES
from bench.load import Load, post_orders
from bench.others import Control
from bench.processes import cpu
from bench.progress import say
from bench.result import Result, milliseconds, ratio
from bench.servers import TITLES
from bench.sizes import POST_SECONDS, ROUNDS
from bench.subject import Subject

# Requests a second as a multiple of the control's. The last release reached these.
REACH = {("arq", "postgresql"): 1.28, ("arq", "sqlite"): 1.14}


@dataclass(frozen=True)
class Posted:
    load: Load
    cpu: float  # milliseconds for each request


def measure(backend: str, folder: Path) -> Iterator[Result]:
    for database in ("postgresql", "sqlite"):
        place = folder / database
        subjects = [Subject("service", backend, place, database)]
        subjects.append(Control(backend, place, database))
        rounds: dict[str, list[Posted]] = defaultdict(list)
        case = f"{NAMES[backend]}, {TITLES[database]}"
        for number in range(ROUNDS):
            for subject in subjects if number % 2 else reversed(subjects):
                rounds[subject.name].append(done := one_round(subject))
                say(f"{case}, {subject.title} {number + 1}/{ROUNDS}: {shown(done)}")
        least = REACH.get((backend, database), 1)
        yield from results(case, rounds["service"], rounds["control"], least)


def one_round(subject: Subject) -> Posted:
    subject.empty()
    with subject.running("api") as api:
        post_orders(subject.port, 1)
        subject.empty()
        return post(subject, api)


def post(subject: Subject, api: psutil.Process) -> Posted:
    before = cpu(api)
    load = post_orders(subject.port, POST_SECONDS)
    return Posted(load, (cpu(api) - before) / load.requests * 1000)


def shown(done: Posted) -> str:
    rate = f"{done.load.per_second:.0f} req/s, p99 {done.load.p99:.0f} ms"
    return f"{rate}, {done.cpu:.2f} ms CPU each"


def results(
    case: str, service: list[Posted], control: list[Posted], least: float
) -> Iterator[Result]:
    both = service, control
    rates = [[each.load.per_second for each in rounds] for rounds in both]
    yield ratio("POST /orders, req/s : control", case, rates, least)
    ours, theirs = (median(each.load.p99 for each in rounds) for rounds in both)
    found = f"{ours:.0f} ms; control {theirs:.0f} ms"
    limited = case.endswith("SQLite")
    reached = ours <= 100 if limited else None
    yield Result("POST /orders, p99", case, found, "<= 100 ms" if limited else "", reached)
    used = [milliseconds([each.cpu for each in rounds]) for rounds in both]
    yield Result("CPU per request", case, f"{used[0]}; control {used[1]}")
