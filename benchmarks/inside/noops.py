"""Jobs that do nothing: the rendered service's against ARQ's own, as it is shipped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.progress import say
from bench.result import Result, ratio
from bench.subject import Subject, wait_for

ROUNDS = 3
JOBS = 1500
DRIVES = {"service": "bench.drive", "control": "control.arq_drive"}


def measure(folder: Path) -> Iterator[Result]:
    service = Subject.service(folder, "postgresql")
    control = Subject.control("arq", folder, "postgresql")
    control.env["CONTROL_POLL_DELAY"] = "0.5"  # as shipped
    rates: dict[str, list[float]] = {"service": [], "control": []}
    for number in range(ROUNDS):
        for subject in (service, control):
            rates[subject.name].append(one_round(subject))
            done = f"{subject.name} {number + 1}/{ROUNDS}: {rates[subject.name][-1]:.0f} jobs/s"
            say(f"no-op jobs, {done}")
    measured = "no-op jobs/s against ARQ as shipped"
    yield ratio(measured, "ARQ, PostgreSQL", (rates["service"], rates["control"]), 2)


def one_round(subject: Subject) -> float:
    subject.empty()
    subject.run("-m", DRIVES[subject.name], "noops", str(JOBS))

    def waiting() -> int:
        return int(subject.redis.zcard("arq:queue"))

    with subject.running("worker"):
        wait_for("started", lambda: waiting() < JOBS * 0.9)
        first, began = waiting(), time.monotonic()
        wait_for("drained", lambda: waiting() == 0)
        return first / (time.monotonic() - began)
