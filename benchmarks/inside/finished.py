"""Measures whether rows of finished jobs slow down requests and other jobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.drains import drain
from bench.progress import say
from bench.requests import one_round
from bench.result import Result, ratio
from bench.sizes import ROUNDS, size
from bench.subject import Subject

ROWS = (0, size(100_000), size(1_000_000))
FINISHED = """
INSERT INTO jobs (id, task, queue, status, attempts, max_attempts, result,
                  created_at, run_at, started_at, finished_at)
SELECT gen_random_uuid(), 'orders.process_order', 'orders', 'succeeded', 1, 3,
       '{"status": "processed"}', at, at, at, at
FROM (SELECT now() - number * interval '10 milliseconds' AS at
      FROM generate_series(1, %d) AS number) AS past
"""


class Grown(Subject):
    changing = ("orders",)


@dataclass(frozen=True)
class Round:
    jobs_per_second: float
    p99: float


def measure(backend: str, folder: Path) -> Iterator[Result]:
    subjects = {}
    for rows in ROWS:
        subject = Grown(f"rows_{rows}", backend, folder, "postgresql")
        subject.change(FINISHED % rows, "VACUUM ANALYZE jobs")
        subjects[rows] = subject
        say(f"{rows:,} finished rows are there")
    rounds: dict[int, list[Round]] = {rows: [] for rows in ROWS}
    for number in range(ROUNDS):
        for rows in ROWS if number % 2 else ROWS[::-1]:
            p99 = one_round(subjects[rows]).load.p99
            done = Round(drain(subjects[rows], "orders").per_second, p99)
            rounds[rows].append(done)
            found = f"{done.jobs_per_second:.0f} orders/s, POST p99 {p99:.0f} ms"
            say(f"{rows:,} finished rows {number + 1}/{ROUNDS}: {found}")
    for rows in ROWS[1:]:
        yield from compared(f"{rows:,} finished rows against none", rounds[rows], rounds[0])


def compared(case: str, many: list[Round], none: list[Round]) -> Iterator[Result]:
    jobs = [[each.jobs_per_second for each in rounds] for rounds in (many, none)]
    yield ratio("orders/s", case, jobs, 0.9)
    p99 = [[each.p99 for each in rounds] for rounds in (many, none)]
    yield ratio("POST /orders, p99 in ms", case, p99, most=1.1)
