"""Measures whether rows that no worker runs, or many that are due at once, slow down the rest.

Processes on all databases run at the same time, so that all are measured under equal conditions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import psutil
from bench.load import post_orders
from bench.processes import cpu
from bench.progress import say
from bench.result import Result, ratio
from bench.sizes import IDLE_SECONDS, POST_SECONDS, ROUNDS, size
from bench.subject import Subject

ROWS, AT_ONCE = size(1_000_000), size(10_000)
BACKEND = "arq"  # only ARQ's worker is started; Celery's would run the queue `workflows`
INSERT = """
INSERT INTO jobs (id, task, queue, args, max_attempts, created_at, run_at)
SELECT gen_random_uuid(), '%s', '%s', '{}', 5, now(), now() + interval '%d s'
FROM generate_series(1, %d)
"""
NONE, AT_ONCE_NAME = "none", "at_once"
TITLES = {
    "workerless": f"{ROWS:,} in a queue without a worker",
    "uncarried": f"{ROWS:,} in a queue that nobody carries",
    "unknown": f"{ROWS:,} of a task that nobody knows",
    AT_ONCE_NAME: f"{AT_ONCE:,} due in the same second",
}
PENDING = {
    "workerless": INSERT % ("bench.noop", "workflows", 0, ROWS),
    "uncarried": INSERT % ("bench.noop", "nowhere", 0, ROWS),
    "unknown": INSERT % ("bench.gone", "default", 0, ROWS),
}
DUE_SOON = INSERT % ("bench.noop", "workflows", 2, AT_ONCE)

Measured = dict[str, list[float]]


def measure(_: str, folder: Path) -> Iterator[Result]:
    subjects = list(made(folder))
    with ExitStack() as apis, ExitStack() as workers:
        running = [[apis.enter_context(each.running("api"))] for each in subjects]
        yield from compared("POST /orders, p99 in ms", in_turn(subjects, "p99", p99))
        for subject, processes in zip(subjects, running, strict=True):
            subject.change("DELETE FROM jobs WHERE queue = 'orders'", "VACUUM ANALYZE jobs")
            processes.append(workers.enter_context(subject.running(subject.worker)))
            p50(subject)  # it ends only after the worker has started
        time.sleep(2)
        for what, number in {"API": 0, "worker": 1}.items():
            processes_of = {s.name: r[number] for s, r in zip(subjects, running, strict=True)}
            yield from compared(f"idle {what}, % of a core", idle(processes_of))
        yield from compared("submit to start, p50 in ms", in_turn(subjects, "latency", p50))
        yield from bells(subjects)


def made(folder: Path) -> Iterator[Subject]:
    for number, name in enumerate([NONE, *TITLES]):
        subject = Subject(name, BACKEND, folder, "postgresql", number)
        subject.empty()
        if name in PENDING:
            subject.change(PENDING[name])
            say(f"{TITLES[name]} are there")
        subject.change("VACUUM ANALYZE jobs")
        yield subject


def in_turn(subjects: list[Subject], what: str, once: Callable[[Subject], float]) -> Measured:
    """Measure one subject after the other, in several rounds."""
    found: Measured = {subject.name: [] for subject in subjects}
    for number in range(ROUNDS):
        for subject in subjects if number % 2 else reversed(subjects):
            if subject.name == AT_ONCE_NAME:  # these jobs fall due during the measure
                subject.change("DELETE FROM jobs WHERE queue = 'workflows'", DUE_SOON)
            found[subject.name].append(value := once(subject))
            say(f"{TITLES.get(subject.name, NONE)}, {what} {number + 1}/{ROUNDS}: {value:.1f} ms")
    return found


def p99(subject: Subject) -> float:
    return post_orders(subject.port, POST_SECONDS).p99


def p50(subject: Subject) -> float:
    seconds: list[float] = json.loads(subject.submit("latency", size(60)))
    return median(seconds) * 1000


def idle(processes: dict[str, psutil.Process]) -> Measured:
    """The share of a core that each process uses, of all at the same time, three times."""
    found: Measured = {name: [] for name in processes}
    for _ in range(3):
        before = {name: cpu(process) for name, process in processes.items()}
        time.sleep(IDLE_SECONDS / 2)
        for name, process in processes.items():
            share = (cpu(process) - before[name]) / (IDLE_SECONDS / 2)
            found[name].append(share * 100)
            say(f"{TITLES.get(name, NONE)}: {share:.2%} of a core")
    return found


def compared(measure: str, found: Measured) -> Iterator[Result]:
    for name, title in TITLES.items():
        yield ratio(measure, f"{title} : none", (found[name], found[NONE]), most=1.1)


def bells(subjects: list[Subject]) -> Iterator[Result]:
    """Redis must hold at most one message for each queue, however many jobs wait."""
    for subject in subjects:
        redis = subject.redis
        keys = redis.keys()
        lists = [redis.llen(key) for key in keys if redis.type(key) == b"list"]
        waits = [int(redis.zcard("arq:queue")), *map(int, lists)]
        found = f"{len(keys)} keys, {sum(waits)} messages"
        case = TITLES.get(subject.name, "no such rows")
        yield Result("Redis holds", case, found, "<= 1 message a queue", max(waits) <= 1)
