"""Counts the connections to PostgreSQL that a process holds at most, under every kind of load."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
from bench.drains import NAMES
from bench.load import post_orders
from bench.processes import connections
from bench.progress import say
from bench.result import Result
from bench.sizes import POST_SECONDS
from bench.subject import Subject

LIMIT = 97  # PostgreSQL allows 100, and keeps 3 of them for superusers
APIS, WORKERS = 3, 8


def measure(backend: str, folder: Path) -> Iterator[Result]:
    service = Subject("service", backend, folder, "postgresql")
    service.submit("connecting", 200)
    with ExitStack() as stack:
        names = dict.fromkeys(["api", service.worker])
        running = {name: stack.enter_context(service.running(name)) for name in names}
        most = under_load(service, running)
    case, total = f"{NAMES[backend]}, PostgreSQL", most["api"] * APIS
    found = ", ".join(f"{name} {number}" for name, number in most.items())
    if backend != "background":
        total += most[service.worker] * WORKERS
    say(f"connections, {case}: {found}")
    what = f"{APIS} APIs" if backend == "background" else f"{APIS} APIs, {WORKERS} workers"
    found = f"{found}; {total} of {what}"
    yield Result("connections at most", case, found, f"<= {LIMIT}", total <= LIMIT)


def under_load(service: Subject, running: dict[str, psutil.Process]) -> dict[str, int]:
    port, deadline = service.engine.url.port or 0, time.monotonic() + 90
    most = dict.fromkeys(running, 0)
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(post_orders, service.port, POST_SECONDS)
        while not load.done() or service.left("noops"):
            for name, process in running.items():
                most[name] = max(most[name], connections(process, port))
            if time.monotonic() > deadline:
                raise TimeoutError("the jobs that connect have not ended after 90 s")
            time.sleep(0.05)
        load.result()
    return most
