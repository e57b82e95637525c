"""Changes Celery's worker: it checks each message, and replaces processes with a stuck thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery import signals
from celery.concurrency import asynpool, prefork
from celery.exceptions import NotRegistered
from celery.worker import consumer
from kombu import Message
from kombu.log import get_logger

from app.core.celery.gate import RefusedError, admit, tell_dropped
from app.core.concurrency import abandoned

log = structlog.get_logger(__name__)
logger = get_logger(__name__)  # of the kind that kombu writes to


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Celery's consumer, which takes only the messages that `gate.py` admits."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Turn off gossip among workers: nothing needs it, and it would bring other messages."""
        super().__init__(*args, **{**options, "without_gossip": True})

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Message], None]:
        handle = super().create_task_handler(*args, **options)

        def on_message(message: Message) -> None:
            try:
                admit(message)
            except Exception as error:
                self._tell_dropped(message, error)
                message.reject_log_error(logger, self.connection_errors)
            else:
                handle(message)

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
    """A process of the pool. With a stuck thread it ends, between two messages."""

    wait_for_job: Any  # billiard sets it in the child

    def _make_child_methods(self, *args: Any, **options: Any) -> None:
        super()._make_child_methods(*args, **options)
        wait = self.wait_for_job

        def wait_unless_spoilt() -> Any:
            if threads := abandoned():
                log.warning("process.replaced", threads=threads)
                raise SystemExit
            return wait()

        self.wait_for_job = wait_unless_spoilt


class AsynPool(asynpool.AsynPool):  # type: ignore[misc]
    Worker = Worker


class TaskPool(prefork.TaskPool):  # type: ignore[misc]
    Pool = AsynPool
