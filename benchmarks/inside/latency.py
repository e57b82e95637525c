"""From submit to the start of the task, on a worker that has nothing else to do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles

from bench.progress import say
from bench.result import Result
from bench.subject import Subject, cpu

JOBS = 100
IDLE = 10  # seconds
TITLES = {"arq": "ARQ", "celery": "Celery", "background": "in the process"}
REACH = {"arq": (30, 120), "celery": (15, None), "background": (15, None)}


def measure(backend: str, folder: Path) -> Iterator[Result]:
    service = Subject.service(folder, "postgresql")
    case = f"{TITLES[backend]}, PostgreSQL"
    with ExitStack() as stack:
        if "worker" in service.commands:
            worker = stack.enter_context(service.running("worker"))
            time.sleep(5)
            before = cpu(worker)
            time.sleep(IDLE)
            share = (cpu(worker) - before) / IDLE
            reach = (0.03, "<= 3 % of a core") if backend == "arq" else (None, "")
            yield idle("idle worker", case, share, *reach)
        found = json.loads(service.run("-m", "bench.drive", "latency", str(JOBS)))
    yield started(case, found, *REACH[backend])
    if backend == "arq":
        control = Subject.control(backend, folder, "postgresql")
        control.env["CONTROL_POLL_DELAY"] = "0.5"
        with control.running("worker"):
            time.sleep(3)
            found = json.loads(control.run("-m", "control.arq_drive", "latency", str(JOBS)))
        yield started("ARQ as shipped", found, None, None)


def started(case: str, seconds: list[float], p50: float | None, p99: float | None) -> Result:
    middle, late = median(seconds) * 1000, quantiles(seconds, n=100)[98] * 1000
    limits = [(middle, p50, "p50"), (late, p99, "p99")]
    asked = [(value, limit, name) for value, limit, name in limits if limit]
    target = ", ".join(f"{name} <= {limit:g} ms" for _, limit, name in asked)
    reached = all(value <= limit for value, limit, _ in asked) if asked else None
    text = f"p50 {middle:.0f} ms, p99 {late:.0f} ms"
    say(f"submit to start, {case}: {text}")
    return Result("submit to start", case, text, target, reached)


def idle(what: str, case: str, share: float, limit: float | None, target: str) -> Result:
    say(f"{what}, {case}: {share:.2%} of a core")
    reached = share <= limit if limit else None
    return Result(what, case, f"{share * 100:.1f} % of a core", target, reached)


def relay(folder: Path) -> Iterator[Result]:
    for database, title in {"postgresql": "PostgreSQL", "sqlite": "SQLite"}.items():
        service = Subject.service(folder / database, database)
        share = json.loads(service.run("-m", "bench.drive", "idle", str(IDLE)))
        yield idle("idle relay", title, share, 0.01, "<= 1 % of a core")
