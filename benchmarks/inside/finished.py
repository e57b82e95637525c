"""Whether rows of jobs that ended make the others slow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.orders import Round, one_round
from bench.progress import say
from bench.result import Result, ratio
from bench.subject import Subject

ROUNDS = 3
ROWS = (0, 100_000, 1_000_000)
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


def measure(folder: Path) -> Iterator[Result]:
    subjects = {}
    for rows in ROWS:
        subject = Grown.service(folder, "postgresql", f"rows_{rows}")
        subject.change(FINISHED % rows, "VACUUM ANALYZE jobs")
        subjects[rows] = subject
        say(f"{rows:,} finished rows are there")
    rounds: dict[int, list[Round]] = {rows: [] for rows in ROWS}
    for number in range(ROUNDS):
        for rows in ROWS if number % 2 else ROWS[::-1]:
            done = one_round(subjects[rows])
            rounds[rows].append(done)
            say(
                f"{rows:,} finished rows {number + 1}/{ROUNDS}: {done.jobs_per_second:.0f} jobs/s,"
                f" {done.load.per_second:.0f} req/s, p99 {done.load.p99:.0f} ms"
            )
    for rows in ROWS[1:]:
        yield from compared(f"{rows:,} finished rows against none", rounds[rows], rounds[0])


def compared(case: str, many: list[Round], none: list[Round]) -> Iterator[Result]:
    jobs = [[each.jobs_per_second for each in rounds] for rounds in (many, none)]
    yield ratio("process_order, jobs/s", case, jobs, 0.9)
    # Upside down, so that more is better here, too.
    p99 = [[1000 / each.load.p99 for each in rounds] for rounds in (many, none)]
    yield ratio("POST /orders, 1000 / p99 in ms", case, p99, 0.9)
