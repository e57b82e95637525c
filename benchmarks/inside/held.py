"""Measures the rate beside an open transaction, which keeps PostgreSQL from removing old rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from bench.processes import wait_for
from bench.progress import say
from bench.result import Result
from bench.sizes import HOLD_SECONDS
from bench.subject import Subject
from sqlalchemy import text

MOST = 8_000  # no-ops a second at most, so that some still wait at the end
PENDING = """
INSERT INTO jobs (id, task, queue, args, max_attempts, created_at, run_at)
SELECT gen_random_uuid(), 'bench.noop', 'default', '{}', 5, at, at
FROM (SELECT now() + number * interval '1 microsecond' AS at
      FROM generate_series(1, %d) AS number) AS future
"""
RAN = "SELECT count(*) FROM jobs WHERE finished_at IS NOT NULL"


@contextmanager
def snapshot(service: Subject) -> Iterator[None]:
    """Keep a snapshot, as a report or a dump does."""
    reading = service.engine.execution_options(isolation_level="REPEATABLE READ")
    with reading.connect() as connection:
        connection.execute(text("SELECT count(*) FROM orders"))
        yield


@contextmanager
def task(service: Subject) -> Iterator[None]:
    """Submit a long task, which the worker takes first and runs beside the others."""
    service.submit("hold", HOLD_SECONDS + 60)
    yield


BESIDE: dict[str, Callable[[Subject], AbstractContextManager[object]]]
BESIDE = {"nothing": nullcontext, "a snapshot": snapshot, "a task with a session": task}


def measure(backend: str, folder: Path) -> Iterator[Result]:
    rates = {}
    for name, beside in BESIDE.items():
        service = Subject("service", backend, folder, "postgresql", STOP_GRACE="1")
        service.empty()
        with beside(service):
            service.change(PENDING % (MOST * HOLD_SECONDS), "ANALYZE jobs")
            rates[name] = rate(service)
        say(f"{HOLD_SECONDS} s beside {name}: {rates[name]:.0f} no-ops/s at the end")
        service.change("DROP TABLE jobs")  # or the next case would share the disk's cache with it
    for name, found in list(rates.items())[1:]:
        share = found / rates["nothing"]
        text = f"{share:.2f}x; {found:.0f} : {rates['nothing']:.0f}"
        case = f"{name}, open for {HOLD_SECONDS} s"
        yield Result("no-ops/s beside it", case, text, ">= 0.8x", round(share, 2) >= 0.8)


def rate(service: Subject) -> float:
    """No-ops a second in the last third of the time, when the most old rows are left behind."""
    with service.running(service.worker) as worker:
        wait_for("started", lambda: service.count(RAN) > 0, worker)
        time.sleep(HOLD_SECONDS * 2 / 3)
        ran, began = service.count(RAN), time.monotonic()
        time.sleep(HOLD_SECONDS / 3)
        seconds, more = time.monotonic() - began, service.count(RAN) - ran
    if service.left("noops") <= 1:
        raise RuntimeError(f"no job was left before {HOLD_SECONDS} s were over: raise MOST")
    return more / seconds
