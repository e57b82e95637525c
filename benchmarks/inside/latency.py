"""Measures the time from submit to the start of the task, on an idle worker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles

import psutil
from bench.drains import NAMES
from bench.others import Control
from bench.processes import cpu
from bench.progress import say
from bench.result import Result
from bench.servers import TITLES
from bench.sizes import IDLE_SECONDS, size
from bench.subject import Subject

JOBS = size(100)
REACH = {"arq": (15, 33), "celery": (15, None), "background": (3, 13)}
IDLE_REACH = {"arq": 0.029}


def measure(backend: str, folder: Path) -> Iterator[Result]:
    service = Subject("service", backend, folder, "postgresql")
    case = f"{NAMES[backend]}, PostgreSQL"
    with ExitStack() as stack:
        if backend != "background":  # its jobs run in the process that submits them
            worker = stack.enter_context(service.running(service.worker))
            service.warm(worker)
            time.sleep(2)
            yield idle("idle worker", case, share_of(worker), IDLE_REACH.get(backend))
        found = json.loads(service.submit("latency", JOBS))
    yield started(case, found, *REACH[backend])
    if backend == "arq":
        control = Control(backend, folder, "postgresql", CONTROL_POLL_DELAY="0.5")
        with control.running("worker") as worker:
            control.warm(worker)
            yield started("ARQ as shipped", json.loads(control.submit("latency", JOBS)))


def share_of(process: psutil.Process) -> float:
    before = cpu(process)
    time.sleep(IDLE_SECONDS)
    return (cpu(process) - before) / IDLE_SECONDS


def started(
    case: str, seconds: list[float], p50: float | None = None, p99: float | None = None
) -> Result:
    middle, late = median(seconds) * 1000, quantiles(seconds, n=100)[98] * 1000
    limits = [(middle, p50, "p50"), (late, p99, "p99")]
    asked = [(value, limit, name) for value, limit, name in limits if limit]
    target = ", ".join(f"{name} <= {limit:g} ms" for _, limit, name in asked)
    reached = all(value <= limit for value, limit, _ in asked) if asked else None
    text = f"p50 {middle:.1f} ms, p99 {late:.1f} ms"
    say(f"submit to start, {case}: {text}")
    return Result("submit to start", case, text, target, reached)


def idle(what: str, case: str, share: float, limit: float | None) -> Result:
    say(f"{what}, {case}: {share:.2%} of a core")
    reached = round(share, 3) <= limit if limit else None
    target = f"<= {limit * 100:g} % of a core" if limit else ""
    return Result(what, case, f"{share * 100:.1f} % of a core", target, reached)


def relay(backend: str, folder: Path) -> Iterator[Result]:
    for database in ("postgresql", "sqlite"):
        service = Subject("service", backend, folder / database, database)
        share = json.loads(service.submit("idle", IDLE_SECONDS))
        yield idle("idle relay", TITLES[database], share, 0.01)
