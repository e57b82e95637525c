"""The metrics of the engine. Their names are the same for every back end.

Nothing is counted until a recorder is given, as `app/core/metrics.py` does for Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from app.jobs.contract import registry
from app.jobs.endings import Ended, Ending, at_each_end

# Any thread calls it with a metric's name, labels and value. It must neither wait nor raise.
Recorder = Callable[[str, tuple[str, ...], float], None]

UNKNOWN = "unknown"  # tasks that this process doesn't know


@dataclass(frozen=True)
class Metric:
    """A metric as Prometheus sees it. `about` is its help text."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    about: str

    def add(self, *labels: str, value: float = 1) -> None:
        """Count it or observe the value, if there is a recorder."""
        if _recorder:
            _recorder(self.name, labels, value)


# Each process counts these itself.
TRIES = Metric("jobs_tries_total", "counter", ("task",), "Tries that began")
OUTCOMES = Metric(
    "jobs_outcomes_total",
    "counter",
    ("task", "outcome"),
    "What tries came to, and jobs that are dead without the end of a try",
)
DURATION = Metric("jobs_duration_seconds", "histogram", ("task", "outcome"), "How long tries took")
START_DELAY = Metric(
    "jobs_start_delay_seconds",
    "histogram",
    ("task",),
    "How long a job was due before its try began",
)
LEASES_LOST = Metric(
    "jobs_leases_lost_total",
    "counter",
    ("task",),
    "Jobs that this process took back from a host that was silent for a lease",
)
BELLS_FAILED = Metric(
    "jobs_bells_failed_total",
    "counter",
    ("backend",),
    "Rings that a broker didn't take: hosts find the jobs by themselves, only later",
)
TICKS_LATE = Metric(
    "schedules_ticks_late_total", "counter", (), "Ticks whose job was submitted over 5 s late"
)
MISSED = Metric(
    "schedules_missed_total",
    "counter",
    (),
    "Times that a schedule's ticks were too late to run; its row says from when to when",
)
LOOP_STALLED = Metric(
    "jobs_loop_stalled_seconds",
    "gauge",
    ("loop",),
    "How long ago an engine loop of this process last turned",
)

# The API asks the database for these.
DATABASE_UP = Metric("jobs_database_up", "gauge", (), "Whether the database answers: 1 or 0")
WAITING = Metric("jobs_waiting", "gauge", ("queue",), "Jobs that are due and wait")
OLDEST = Metric(
    "jobs_oldest_waiting_seconds", "gauge", ("queue",), "How long the oldest of them has been due"
)
RUNNING = Metric("jobs_running", "gauge", ("queue",), "Jobs that run")
DEAD = Metric("jobs_dead", "gauge", ("queue",), "Dead jobs: they wait for a replay")
PAUSED = Metric("jobs_queue_paused", "gauge", ("queue",), "Whether the queue is paused: 1 or 0")
PROCESSES = Metric(
    "jobs_queue_processes", "gauge", ("queue",), "Live processes that carry the queue"
)
OVERDUE = Metric(
    "schedules_overdue_seconds", "gauge", (), "How long the most overdue tick has been due"
)

COUNTED = (TRIES, OUTCOMES, DURATION, START_DELAY, LEASES_LOST, BELLS_FAILED, TICKS_LATE, MISSED)


_recorder: Recorder | None = None


def record_with(recorder: Recorder) -> None:
    """Give all that is counted in this process to this recorder. It is called once."""
    global _recorder
    _recorder = recorder


@at_each_end
def _count_end(ended: Ended) -> None:
    if _recorder and ended.ending is not Ending.TAKEN_BACK:
        task = label_of(ended.task)
        OUTCOMES.add(task, ended.ending)
        if ended.took is not None:
            DURATION.add(task, ended.ending, value=ended.took)
        if ended.waited is not None:
            START_DELAY.add(task, value=max(0.0, ended.waited))


def label_of(task: str) -> str:
    """The task's name as a label. Rows may name any task, but labels must stay few."""
    return task if task in registry() else UNKNOWN
