"""The worker. Its main process sends messages, and the processes of its pool run jobs.

celery -A app.core.celery worker --loglevel=info

At SIGTERM it takes no new job, and running ones get the stop grace. Then jobs are handed back, and
native tasks that still run go back to the broker. The exit code is 0 all the same.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from celery import bootsteps, signals
from celery.concurrency import get_implementation
from celery.worker import state

from app import tasks
from app.config import get_settings
from app.core import database
from app.core.celery import broker, celery_app, counting, overrides, producer_app
from app.core.celery.messages import CHECKPOINT, CeleryBell, Keeper, unknown
from app.core.celery.pool import HAND_BACK, this_child
from app.core.concurrency import forget_loops, heartbeat, in_background, stalled
from app.core.drivers import PATIENCE
from app.core.logging import flush_reports
from app.jobs import Task
from app.jobs.backends import Presence, new_watch, registry, watch

log = structlog.get_logger(__name__)

LAST_WORDS = 3  # seconds in which the pool's processes hand their jobs back
GOODBYE = 5  # seconds after these in which Celery disconnects from its broker
SILENCE = 5  # seconds that Celery's loop is silent before the broker is asked
# Seconds that a statement or a message under way may take. On SQLite a write waits for its turn.
PAUSE_LIMIT = 10 + (PATIENCE if database.IS_SQLITE else 0)


def _require_the_broker(**_: Any) -> None:
    get_settings().require(broker.ADDRESS)


def _refuse_other_pools(sender: Any, **_: Any) -> None:
    """A job needs a process of the pool, with a loop, a host and an alarm of its own."""
    if not issubclass(get_implementation(sender.pool_cls), overrides.TaskPool):
        sys.exit("celery worker: start it with --pool=prefork, because other pools run no jobs")


def _start_child(**_: Any) -> None:
    this_child()


def _end_child(**_: Any) -> None:
    this_child().close()
    flush_reports()


def register(task: Task[..., Any, Any]) -> None:
    """The task's own timeout comes first. Celery's limits end a process that overruns it."""
    seconds = task.timeout.total_seconds()

    @celery_app.task(
        name=task.name, ignore_result=True, soft_time_limit=seconds + 30, time_limit=seconds + 60
    )
    def run(job_id: str) -> None:
        this_child().run(task.name, UUID(job_id))


@celery_app.task(name=CHECKPOINT, ignore_result=True)
def checkpoint(queue: str, late: str) -> None:
    """Messages that were sent into this queue long before this one have arrived or are lost."""
    this_child().checkpoint(queue, datetime.fromisoformat(late))


class KeeperThread:
    """Runs the keeper and the watch over leases in a thread of the main process.

    It pauses while that process forks. Else a child would inherit it in the middle of a statement,
    with its connections and its locks. Then the same watch and keeper go on: a new watch would
    first wait for half a lease, and a new keeper would send checkpoints at once, at each fork.
    """

    def __init__(self) -> None:
        self._wanted = False
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        os.register_at_fork(
            before=self._pause, after_in_parent=self._resume, after_in_child=self._forget
        )

    def start(self, slots: int) -> None:
        self._presence = Presence("celery", slots, lambda: len(state.active_requests))
        self._watch = new_watch(self._presence)
        self._bell = CeleryBell(producer_app)
        self._keeper = Keeper(self._bell)
        self._wanted = True
        self._resume()

    def end(self, **_: Any) -> None:
        self._wanted = False
        self._pause()

    async def _keep(self) -> None:
        async with (
            in_background(watch(self._watch)),
            in_background(self._keeper.run()),
            in_background(self._speak_for_celery()),
        ):
            await asyncio.to_thread(self._ended.wait)
        if not self._wanted:
            await self._presence.leave()
        await database.dispose()
        with producer_app.connection_or_acquire() as connection:
            connection.collect()  # a new process of the pool closes what it inherits, for both

    async def _speak_for_celery(self) -> None:
        """Show life while Celery's loop waits for its broker. The pool runs jobs meanwhile."""
        while True:
            await asyncio.sleep(1)
            if stalled().get("worker", 0) > SILENCE:
                try:
                    await self._bell.ping()
                except Exception:
                    _show_life()

    def _pause(self) -> None:
        if self._thread:
            self._ended.set()
            self._thread.join(PAUSE_LIMIT)
            self._thread = None

    def _resume(self) -> None:
        if self._wanted:
            self._ended.clear()
            self._thread = threading.Thread(target=asyncio.run, args=[self._keep()], daemon=True)
            self._thread.start()

    def _forget(self) -> None:
        self._wanted = False


keeper = KeeperThread()


class Keeping(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the keeper before Celery connects: else no job ran while the broker is silent then."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        keeper.start(worker.concurrency)


class BoundedStop(bootsteps.StartStopStep):  # type: ignore[misc]
    """Limits Celery's warm shutdown, which waits for as long as a task runs.

    A stop begins with a signal to the process, or with a remote command, which calls only `close`.
    """

    begun = False  # for the whole process, which has one worker

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        signals.worker_shutting_down.connect(lambda **_: self.close(worker), weak=False)

    def close(self, worker: Any) -> None:
        if BoundedStop.begun:
            return
        BoundedStop.begun, grace = True, get_settings().stop_grace
        forget_loops()
        _at(max(grace, 0.01), lambda *_: _hand_back(worker))
        last = threading.Timer(grace + LAST_WORDS + GOODBYE, _end_at_once)
        last.daemon = True
        last.start()
        atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)


def _hand_back(worker: Any) -> None:
    if not worker.pool._pool:  # its processes have ended already
        return
    for pid in worker.pool.info["processes"]:
        with suppress(ProcessLookupError):
            os.kill(pid, HAND_BACK)
    _at(LAST_WORDS, lambda *_: signal.raise_signal(signal.SIGQUIT))


def _end_at_once() -> None:
    """End although Celery still waits for a silent broker. The jobs are handed back by now."""
    log.warning("worker.cut_off")
    os._exit(0)


def _at(seconds: float, handler: Callable[..., None]) -> None:
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _name_the_task(task_id: str, sender: Any, **_: Any) -> None:
    key = "job_id" if sender.name in registry() else "task_id"
    structlog.contextvars.bind_contextvars(**{key: task_id})


def _forget_the_task(**_: Any) -> None:
    structlog.contextvars.clear_contextvars()


def _leave_to_others(id: str, **_: Any) -> None:
    """Let a job of another release get a new message, which a worker of that release may take."""
    with suppress(ValueError):  # a native task's id may be any text
        unknown.append(UUID(id))


def _show_life(**_: Any) -> None:
    """Show that Celery's own loop runs. The keeper's thread would go on if the worker took no jobs.

    A loop that has ended sends a last heartbeat. It must not count: the loop would seem stalled.
    """
    if not BoundedStop.begun:
        heartbeat("worker")


signals.setup_logging.connect(overrides.configure_logging_of_worker)
signals.worker_process_init.connect(_start_child)
signals.worker_process_shutdown.connect(_end_child)
signals.worker_init.connect(_require_the_broker)
signals.worker_init.connect(_refuse_other_pools)
signals.worker_init.connect(counting.serve)
signals.worker_process_init.connect(counting.pass_on)
signals.worker_shutdown.connect(keeper.end)
signals.heartbeat_sent.connect(_show_life)
signals.task_unknown.connect(_leave_to_others)
signals.task_prerun.connect(_name_the_task)
signals.task_postrun.connect(_forget_the_task)

celery_app.steps["worker"].update([Keeping, BoundedStop])

tasks.load()
for _task in registry().values():
    register(_task)
