"""Sends each logged error to Sentry once, without personal data.

Sentry's own integrations are off. They would report an error in each layer that it passes, together
with the request, its body and what a library logged before.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.atexit import AtexitIntegration
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.excepthook import ExcepthookIntegration
from structlog.contextvars import get_contextvars

from app.config import get_settings

TAGS = {"attempt", "job_id", "queue", "request_id", "schedule_id", "task", "task_id"}
FLUSH = 2  # seconds in which a process that ends sends the rest


def start_sentry(dsn: str) -> None:
    settings = get_settings()
    sentry_sdk.init(
        dsn,
        environment=settings.environment,
        release=settings.release,
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[
            AtexitIntegration(callback=lambda pending, timeout: None),
            DedupeIntegration(),
            ExcepthookIntegration(),
        ],
        include_local_variables=False,  # they hold arguments
        max_request_body_size="never",
        max_breadcrumbs=0,
        shutdown_timeout=FLUSH,
    )


class SentryHandler(logging.Handler):
    """Sends a line's event, error and ids, and a library's line as its text without arguments."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.addFilter(lambda record: not record.name.startswith("sentry_sdk"))

    def emit(self, record: logging.LogRecord) -> None:
        line = record.msg if isinstance(record.msg, dict) else get_contextvars()
        error = _error_of(line.get("exc_info") or record.exc_info)
        with sentry_sdk.new_scope() as scope:
            scope.set_tags({name: str(line[name]) for name in TAGS & line.keys()})
            scope.set_tag("logger", record.name)
            if error:
                sentry_sdk.capture_exception(error)
            else:
                told = [str(line.get("event", record.msg)), str(line.get("error", ""))]
                sentry_sdk.capture_message(": ".join(filter(None, told)), "error")


def _error_of(given: Any) -> BaseException | None:
    """The error of a log's `exc_info`: an error, a triple, or True for the one being handled."""
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    return error if isinstance(error, BaseException) else None


def flush_sentry() -> None:
    """Send the rest, within seconds. It is for processes that end without Python's own exit."""
    sentry_sdk.flush(FLUSH)
