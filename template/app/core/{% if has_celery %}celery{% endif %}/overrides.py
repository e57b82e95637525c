"""Changes Celery's worker.

It checks each message, replaces processes with a stuck thread or task, and keeps time limits over
an outage of its broker. It logs no arguments, and no such outage as an error. While the broker
refuses what it needs, it logs one line a second.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import structlog
from billiard import util
from celery import signals
from celery.app import trace
from celery.concurrency import asynpool, base, prefork
from celery.exceptions import NotRegistered
from celery.worker import consumer, strategy
from kombu import Message
from kombu.log import get_logger

from app.core.celery import broker
from app.core.celery.gate import RefusedError, admit, tell_dropped, tell_failed
from app.core.celery.pool import this_child
from app.core.concurrency import abandoned
from app.core.logging import configure_logging

log = structlog.get_logger(__name__)
logger = get_logger(__name__)  # of the kind that kombu writes to

PAUSE = 1  # seconds before a worker connects again
ADVICE = "start the broker, or correct the address"
AWAY = f"{broker.ADDRESS.upper()}: Cannot connect to %s: %s: {ADVICE}. %s"


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Celery's consumer, which takes only the messages that `gate.py` admits."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Turn off gossip among workers: nothing needs it, and it would bring other messages."""
        super().__init__(*args, **{**options, "without_gossip": True})

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        tell_failed("broker.failed", exc)
        time.sleep(PAUSE)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        self.on_connection_error_before_connected(exc)
        super().on_connection_error_after_connected(exc)

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Message], None]:
        handle = super().create_task_handler(*args, **options)

        def on_message(message: Message) -> None:
            try:
                admit(message)
                handle(message)
            except self.connection_errors:
                raise  # the worker connects again
            except Exception as error:  # even the result store's, when a message has expired
                self._tell_dropped(message, error)
                if not message.acknowledged:
                    message.reject_log_error(logger, self.connection_errors)

        return on_message

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        self._tell_dropped(message, exc)
        message.ack_log_error(logger, self.connection_errors)

    def on_unknown_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Drop a task of another release. A job is left to other workers; a native task fails."""
        name, task_id = message.headers["task"], message.headers["id"]
        self._tell_dropped(message, RefusedError("this release has no such task"))
        message.reject_log_error(logger, self.connection_errors)
        signals.task_unknown.send(self, name=name, id=task_id, message=message, exc=exc)
        if not message.headers.get("ignore_result"):
            self.app.backend.mark_as_failure(task_id, NotRegistered(name))

    def _tell_dropped(self, message: Message, error: Exception) -> None:
        tell_dropped(message.delivery_info.get("routing_key"), error, message.headers.get("task"))


class Worker(asynpool.Worker):  # type: ignore[misc]
    """A process of the pool. With a stuck thread or task it ends, between two messages."""

    wait_for_job: Any  # billiard sets it in the child

    def _make_child_methods(self, *args: Any, **options: Any) -> None:
        super()._make_child_methods(*args, **options)
        wait = self.wait_for_job

        def wait_unless_spoilt() -> Any:
            if (threads := abandoned()) or this_child().is_stuck:
                log.warning("process.replaced", threads=threads)
                raise SystemExit
            return wait()

        self.wait_for_job = wait_unless_spoilt


class AsynPool(asynpool.AsynPool):  # type: ignore[misc]
    Worker = Worker

    def register_with_event_loop(self, hub: Any) -> None:
        """Limit the tasks that run on: at each outage of the broker Celery forgets their limits."""
        super().register_with_event_loop(hub)
        for job in list(self._cache.values()):
            if job.accepted() and not job.ready():
                passed = time.monotonic() - job._time_accepted
                limits = job._soft_timeout, job._timeout
                self.on_timeout_set(job, *(each and max(0.01, each - passed) for each in limits))


class TaskPool(prefork.TaskPool):  # type: ignore[misc]
    Pool = AsynPool


def configure_logging_of_worker(**_: Any) -> None:
    configure_logging()
    trace.LOG_SUCCESS = "Task %(name)s[%(id)s] succeeded in %(runtime)ss"
    for each in (trace.logger, strategy.logger):
        each.addFilter(_without_arguments)
    consumer.consumer.logger.addFilter(_no_error)
    for source in (consumer.consumer.logger, logging.getLogger("py.warnings")):
        source.addFilter(_is_new)
    base.logger.setLevel("INFO")  # at DEBUG it logs each native task's arguments
    pool = util.get_logger()  # it writes to standard error itself
    pool.setLevel("ERROR")
    pool.propagate = True


def _without_arguments(record: logging.LogRecord) -> bool:
    """Remove a task's arguments and result, which Celery adds to its lines of the log."""
    record.__dict__.pop("data", None)
    return True


def _no_error(record: logging.LogRecord) -> bool:
    """Log a failed try to connect as a warning: Sentry would get each error."""
    if record.msg == consumer.consumer.CONNECTION_ERROR:
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg = AWAY
    return True


def _is_new(record: logging.LogRecord) -> bool:
    """Leave out what Celery adds to `broker.failed`: a traceback, which may show a message."""
    said_again = consumer.consumer.CONNECTION_RETRY, consumer.consumer.CANCEL_TASKS_BY_DEFAULT
    return not any(text in record.getMessage() for text in said_again)
