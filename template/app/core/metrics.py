"""Serves this process's metrics for Prometheus on METRICS_PORT, or counts nothing if it is unset.

A thread serves them, so that it answers while the event loop stands still. It listens on
METRICS_HOST alone, and answers whoever reaches it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from app.config import get_settings
from app.core.concurrency import stalled
from app.core.control import control_session
from app.core.outages import tell
from app.jobs import Jobs, QueueState, Schedules
from app.jobs.backends import Ending, Recorder, metrics, record_with, registry

if TYPE_CHECKING:  # a process without METRICS_PORT does without it
    from prometheus_client.metrics_core import GaugeMetricFamily

log = structlog.get_logger(__name__)

Values = Iterable[tuple[Sequence[str], float]]  # the labels' values, and the metric's

AGAIN = 1  # second after which a port that is in use is tried again
YOUNG = 5  # seconds for which an answer of the database serves further scrapes
PATIENCE = 3  # seconds for which a scrape waits for the database
OTHER = "other"  # all queues that QUEUES doesn't name
BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

_recorder: Recorder | None = None
_server: Any = None  # of prometheus_client


def serve(loop: asyncio.AbstractEventLoop | None = None) -> Recorder | None:
    """Count what happens in this process, and serve it until the process ends.

    If a loop is given, a scrape asks the database as well. Returns the recorder, if there is one.
    """
    global _recorder
    settings = get_settings()
    if settings.metrics_port is None or _recorder:
        return _recorder
    from prometheus_client import REGISTRY

    _recorder = _counters()
    record_with(_recorder)
    REGISTRY.register(_Loops())
    if loop:
        REGISTRY.register(_Database(loop))
    address = settings.metrics_host, settings.metrics_port
    threading.Thread(target=_open, args=address, name="metrics", daemon=True).start()
    return _recorder


def leave() -> None:
    """Close the port that a forked process inherits: the next process may need it."""
    if _server:
        _server.socket.close()


def _open(host: str, port: int) -> None:
    """Try until the port is free: an older process may have it until it ends."""
    global _server
    from prometheus_client import start_http_server

    told = False
    while True:
        try:
            _server, _ = start_http_server(port, host)
        except OSError as error:
            if not told:
                log.warning("metrics.not_served", host=host, port=port, error=str(error))
            told = True
            time.sleep(AGAIN)
        else:
            log.info("metrics.served", host=host, port=port)
            return


def _counters() -> Recorder:
    """Known labels begin at zero, so that their first event after a scrape is an increase."""
    from prometheus_client import Counter, Histogram, disable_created_metrics

    disable_created_metrics()  # type: ignore[no-untyped-call]
    counters, histograms = dict[str, Counter](), dict[str, Histogram]()
    for each in metrics.COUNTED:
        if each.kind == "counter":
            counters[each.name] = Counter(each.name, each.about, each.labels)
        else:
            histograms[each.name] = Histogram(each.name, each.about, each.labels, buckets=BUCKETS)

    def record(name: str, labels: tuple[str, ...], value: float) -> None:
        if counter := counters.get(name):
            (counter.labels(*labels) if labels else counter).inc(value)
        else:
            histograms[name].labels(*labels).observe(value)

    for task in (*registry(), metrics.UNKNOWN):
        for of_task in (metrics.TRIES, metrics.LEASES_LOST):
            record(of_task.name, (task,), 0)
        for outcome in set(Ending) - {Ending.TAKEN_BACK}:
            record(metrics.OUTCOMES.name, (task, outcome), 0)
    for backend in set(get_settings().queues.values()):
        record(metrics.BELLS_FAILED.name, (backend,), 0)
    return record


def _family(metric: metrics.Metric, values: Values) -> GaugeMetricFamily:
    from prometheus_client.metrics_core import GaugeMetricFamily

    family = GaugeMetricFamily(metric.name, metric.about, labels=metric.labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


class _Loops:
    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield _family(
            metrics.LOOP_STALLED, [((loop,), seconds) for loop, seconds in stalled().items()]
        )


class _Database:
    """Asks the database, and keeps the answer for a while. It also shows whether one came."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._one = threading.Lock()
        self._asked, self._answer = float("-inf"), dict[metrics.Metric, Values]()

    def describe(self) -> list[GaugeMetricFamily]:
        """Registration needs no metrics, and so it doesn't ask the database."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        with self._one:
            if time.monotonic() - self._asked > YOUNG:
                self._answer = self._ask()
                self._asked = time.monotonic()
            answer = self._answer
        for metric, values in answer.items():
            yield _family(metric, values)

    def _ask(self) -> dict[metrics.Metric, Values]:
        asking = asyncio.run_coroutine_threadsafe(_ask_in_time(), self._loop)
        try:
            return asking.result(PATIENCE + 1)
        except Exception as error:
            asking.cancel()
            tell("metrics.without_database", error)
            return {metrics.DATABASE_UP: [((), 0)]}


async def _ask_in_time() -> dict[metrics.Metric, Values]:
    async with asyncio.timeout(PATIENCE), control_session() as session:
        queues = await Jobs(session).queues()
        overdue = await Schedules(session).overdue()

    def age(queue: QueueState) -> float:
        return queue.age.total_seconds() if queue.age else 0

    return {
        metrics.DATABASE_UP: [((), 1)],
        metrics.WAITING: _each(queues, lambda queue: queue.waiting),
        metrics.OLDEST: _each(queues, age, max),
        metrics.RUNNING: _each(queues, lambda queue: queue.running),
        metrics.DEAD: _each(queues, lambda queue: queue.dead),
        metrics.PAUSED: _each(queues, lambda queue: queue.paused_at is not None, max),
        metrics.PROCESSES: _each(queues, lambda queue: queue.processes, max),
        metrics.OVERDUE: [((), overdue.total_seconds())],
    }


def _each(
    queues: Iterable[QueueState],
    value: Callable[[QueueState], float],
    of_others: Callable[[list[float]], float] = sum,
) -> Values:
    """A value for each queue. Rows may name any queue: those that QUEUES lacks share one label."""
    known, found = get_settings().queues, dict[str, list[float]]()
    for queue in queues:
        label = queue.name if queue.name in known else OTHER
        found.setdefault(label, []).append(value(queue))
    return [((label,), of_others(values)) for label, values in found.items()]
