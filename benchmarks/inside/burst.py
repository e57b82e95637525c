"""Measures whether one of three idle workers stays idle when many jobs are due at once."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.drains import NAMES
from bench.progress import say
from bench.result import Result
from bench.sizes import ROUNDS, size
from bench.subject import Subject
from sqlalchemy import text

WORKERS = 3
JOBS = {"burst": size(10_000), "short_burst": size(3_000)}
TITLES = {"burst": "no-ops", "short_burst": "jobs of 20 ms"}
STARTS = """
SELECT CAST(CAST(result AS text) AS integer), extract(epoch FROM started_at)
FROM jobs WHERE task = 'bench.where' ORDER BY started_at
"""


@dataclass(frozen=True)
class Burst:
    first: list[float]  # milliseconds until each worker began; until the last start if it never did
    gap: float  # the longest time in milliseconds in which a worker started none of the due jobs
    shares: list[int]


def measure(backend: str, folder: Path) -> Iterator[Result]:
    service = Subject("service", backend, folder, "postgresql")
    found: dict[str, list[Burst]] = defaultdict(list)
    with ExitStack() as stack:
        for _ in range(WORKERS):
            worker = stack.enter_context(service.running(service.worker))
        service.warm(worker)
        time.sleep(5)
        for number in range(ROUNDS):
            for what, jobs in JOBS.items():
                service.change("DELETE FROM jobs")
                committed = json.loads(service.submit(what, jobs))
                done = burst(service, committed)
                found[what].append(done)
                say(f"{jobs:,} {TITLES[what]} {number + 1}/{ROUNDS}: {shown([done])}")
    for what, bursts in found.items():
        case = f"{JOBS[what]:,} {TITLES[what]}, {WORKERS} workers, {NAMES[backend]}"
        worst = max(max(each.gap, *each.first) for each in bursts)
        yield Result(
            "a worker idle beside due rows", case, shown(bursts), "<= 100 ms", worst <= 100
        )


def burst(service: Subject, committed: float) -> Burst:
    """Read from the rows when each job was started, and by which process."""
    starts: dict[int, list[float]] = defaultdict(list)
    with service.engine.connect() as connection:
        rows = connection.execute(text(STARTS)).all()
    for process, at in rows:
        starts[process].append(float(at))
    last = float(rows[-1][1])  # until then rows were due
    gaps = [
        after - before
        for times in starts.values()
        for before, after in zip(times, [*times[1:], last], strict=True)
    ]
    began = [times[0] for times in starts.values()]
    never = [last] * (WORKERS - len(began))
    first = sorted((at - committed) * 1000 for at in [*began, *never])
    return Burst(first, max(gaps) * 1000, sorted(map(len, starts.values())))


def shown(bursts: list[Burst]) -> str:
    """The worst of the bursts as text."""
    first, gap = max(each.first[-1] for each in bursts), max(each.gap for each in bursts)
    shares = " : ".join(map(str, bursts[-1].shares))
    return f"last to begin after {first:.0f} ms, longest gap {gap:.0f} ms; {shares}"
