"""Many jobs submitted by one call, in one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from bench.others import Peer
from bench.progress import say
from bench.result import Result, ratio
from bench.sizes import QUICK, size
from bench.subject import Subject

JOBS = size(5_000)
ROUNDS = 1 if QUICK else 5  # more than of other measures, because a round is short


def measure(backend: str, folder: Path) -> Iterator[Result]:
    subjects = [
        Subject("service", backend, folder, "postgresql"),
        Peer("procrastinate", folder, "postgresql"),
    ]
    seconds: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    for number in range(ROUNDS):
        for subject in subjects if number % 2 else reversed(subjects):
            subject.empty()
            took = json.loads(subject.submit("noops", JOBS))
            seconds[subject.name].append(took)
            say(f"{JOBS:,} jobs at once, {subject.title} {number + 1}/{ROUNDS}: {took:.3f} s")
    case = f"{JOBS:,} jobs, PostgreSQL"
    yield ratio("submit_many, s : batch_defer", case, list(seconds.values()), most=1.5)
