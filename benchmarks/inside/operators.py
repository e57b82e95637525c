"""Measures whether operators' requests and scrapes take longer among a million rows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import httpx
import psutil
from app.core.metrics import YOUNG
from app.jobs.table import jobs
from app.schemas.jobs import cursor_of
from bench.processes import wait_for
from bench.progress import say
from bench.result import Result, ratio
from bench.servers import TITLES
from bench.sizes import QUICK, ROUNDS, size
from bench.subject import Subject
from devtools.processes import free_port, listens
from sqlalchemy import select

FEW, MANY = size(3_000), size(1_000_000)
ASKED = 2 if QUICK else 20  # requests to each address
LIMIT = 100  # milliseconds for a request that counts rows
# A third of the rows are due and wait in one queue. In another a third are dead, a third succeeded.
PAST = """
INSERT INTO jobs (id, task, queue, status, attempts, max_attempts, error,
                  created_at, run_at, started_at, finished_at)
SELECT id, 'bench.noop', CASE kind WHEN 'pending' THEN 'default' ELSE 'orders' END,
       kind, 1, 3, CASE kind WHEN 'dead' THEN 'ValueError: no' END,
       at, at, at, CASE WHEN kind <> 'pending' THEN at END
FROM (%s) AS past
"""
# The moment and the kind of each row.
ROWS = {
    "postgresql": """
        SELECT gen_random_uuid() AS id, now() - number * interval '10 milliseconds' AS at,
               (ARRAY['pending', 'dead', 'succeeded'])[number % 3 + 1] AS kind
        FROM generate_series(1, {rows}) AS number
    """,
    "sqlite": """
        WITH RECURSIVE numbers (number) AS (
            SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < {rows}
        )
        SELECT lower(hex(randomblob(16))) AS id,
               strftime('%Y-%m-%d %H:%M:%f000', 'now', (-number / 100.0) || ' seconds') AS at,
               CASE number % 3 WHEN 0 THEN 'pending' WHEN 1 THEN 'dead' ELSE 'succeeded' END AS kind
        FROM numbers
    """,
}
TIDIED = {"postgresql": "VACUUM ANALYZE jobs", "sqlite": "ANALYZE jobs"}
MIDDLE = select(jobs.c.created_at, jobs.c.id).order_by(jobs.c.created_at, jobs.c.id).limit(1)
SCRAPE = "a scrape"
COUNTING = (SCRAPE, "GET /queues", "/ops/queues")

Times = dict[str, list[float]]  # milliseconds, by the request


class Asked(Subject):
    """A service's API, and an operator's client."""

    def __init__(self, rows: int, backend: str, folder: Path, database: str) -> None:
        self.metrics = free_port()
        port = str(self.metrics)
        super().__init__(f"rows_{rows}", backend, folder, database, METRICS_PORT=port)
        self.change(PAST % ROWS[database].format(rows=rows), TIDIED[database])
        with self.engine.connect() as connection:
            middle = connection.execute(MIDDLE.offset(rows // 2)).one()
        self.middle = cursor_of((middle.created_at, middle.id))
        self.client = httpx.Client(headers={"X-API-Key": os.environ["API_KEY"]}, timeout=60)
        self.times: Times = {}
        say(f"{rows:,} rows are there")

    def log_in(self, api: psutil.Process) -> None:
        self.client.base_url = httpx.URL(f"http://127.0.0.1:{self.port}")
        self.client.post("/ops/login", data={"key": os.environ["API_KEY"]})
        wait_for("there", lambda: listens(self.metrics), api)

    @property
    def addresses(self) -> dict[str, str]:
        later = f"after={self.middle}"
        return {
            "GET /queues": "/queues",
            "GET /jobs, first page": "/jobs?status=any",
            "GET /jobs, a page from the middle": f"/jobs?status=any&{later}",
            "GET /jobs, dead": "/jobs?status=dead",
            "GET /jobs, by task and error": "/jobs?status=any&task=bench.noop&error=valueerror",
            "/ops/queues": "/ops/queues",
            "/ops/jobs, first page": "/ops/jobs",
            "/ops/jobs, a page from the middle": f"/ops/jobs?{later}",
        }

    def ask(self, what: str, address: str) -> None:
        began = time.perf_counter()
        self.client.get(address).raise_for_status()
        self.times.setdefault(what, []).append((time.perf_counter() - began) * 1000)


def measure(backend: str, folder: Path) -> Iterator[Result]:
    for database in ROWS:
        yield from measure_on(database, backend, folder)


def measure_on(database: str, backend: str, folder: Path) -> Iterator[Result]:
    subjects = [Asked(rows, backend, folder / database, database) for rows in (FEW, MANY)]
    with ExitStack() as stack:
        for subject in subjects:
            subject.log_in(stack.enter_context(subject.running("api")))
        ask_all(subjects)
        scrape_all(subjects)
    few, many = (subject.times for subject in subjects)
    for what in many:
        if what in COUNTING:
            yield bounded(what, TITLES[database], many[what], few[what])
        else:
            case = f"{MANY:,} rows : {FEW:,}, {TITLES[database]}"
            yield ratio(f"{what}, ms", case, (many[what], few[what]), most=1.5)


def ask_all(subjects: list[Asked]) -> None:
    """Send all requests to each subject in turn. The first round only warms up."""
    for number in range(ASKED + 1):
        for subject in subjects if number % 2 else reversed(subjects):
            if number == 1:
                subject.times.clear()
            for what, address in subject.addresses.items():
                subject.ask(what, address)


def scrape_all(subjects: list[Asked]) -> None:
    """Scrape so seldom that each scrape asks the database, and none gets a kept answer."""
    for number in range(ROUNDS):
        for subject in subjects if number % 2 else reversed(subjects):
            time.sleep(YOUNG + 0.1)
            subject.ask(SCRAPE, f"http://127.0.0.1:{subject.metrics}/metrics")
            say(f"{subject.name}: a scrape in {subject.times[SCRAPE][-1]:.0f} ms")


def bounded(what: str, database: str, many: list[float], few: list[float]) -> Result:
    found = f"{median(many):.0f} ms, at most {max(many):.0f} ms; {median(few):.0f} ms of {FEW:,}"
    return Result(what, f"{MANY:,} rows, {database}", found, f"<= {LIMIT} ms", max(many) <= LIMIT)
