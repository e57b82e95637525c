"""Structured logs: every line written while a job runs names the job, whoever writes it."""

from __future__ import annotations

import logging
import logging.config
import os
import sys
from typing import Any

import structlog

from app.config import get_settings, unknown_variables
from app.core.tracing import flush_spans, ids


def _name_the_trace(logger: object, name: str, event: structlog.typing.EventDict) -> Any:
    event.update(ids())
    return event


SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    _name_the_trace,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

LONGEST = 20_000  # characters of a value, a traceback's among them


def cut(text: str, most: int) -> str:
    """Cut a longer text, and say so at its end."""
    return text if len(text) <= most else f"{text[:most]} ... (cut: {len(text)} characters)"


def _cut_values(logger: object, name: str, event: structlog.typing.EventDict) -> Any:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = cut(value, LONGEST)
    return event


def escaped(text: str) -> str:
    """Escape what isn't printable, as a Python literal does: a terminal could obey it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _escape(logger: object, name: str, event: structlog.typing.EventDict) -> Any:
    """Escape values and indent tracebacks, so that no input can forge a line of the log."""
    for key, value in event.items():
        if key == "exception":
            event[key] = "\n".join(f"  {escaped(line)}" for line in value.split("\n"))
        elif isinstance(value, str):
            event[key] = escaped(value)
    return event


def _drop_colors(logger: object, name: str, event: structlog.typing.EventDict) -> Any:
    event.pop("color_message", None)  # uvicorn's second form of a message
    return event


def _drop_meant_tracebacks(logger: object, name: str, event: structlog.typing.EventDict) -> Any:
    """A task raises RetryLater and NonRetryable on purpose: their text says enough."""
    if getattr(event.get("exc_info"), "needs_no_traceback", False):
        del event["exc_info"]
    return event


def flush_reports() -> None:
    """Send what was just reported. It is for a process that ends without Python's own exit."""
    if get_settings().sentry_dsn:
        from app.core.sentry import flush_sentry

        flush_sentry()
    flush_spans()


# One list for all: a logger that was used once keeps its list when logging is configured again.
PROCESSORS: list[structlog.typing.Processor] = [
    structlog.stdlib.filter_by_level,
    *SHARED,
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
]


def configure_logging() -> None:
    """Send structlog and the standard library through one renderer, to standard error."""
    settings = get_settings()
    # Plain tracebacks, because the renderer's own can show the values of variables.
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty() or "FORCE_COLOR" in os.environ,
        exception_formatter=structlog.dev.plain_traceback,
    )
    renderer: list[structlog.typing.Processor] = [_escape, console]
    if settings.log_json:
        renderer = [structlog.processors.JSONRenderer()]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*SHARED, structlog.stdlib.ExtraAdder(), _drop_colors],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _drop_meant_tracebacks,
            structlog.processors.format_exc_info,
            _cut_values,
            *renderer,
        ],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    handlers: list[logging.Handler] = [handler]
    if settings.sentry_dsn:
        from app.core.sentry import SentryHandler, start_sentry  # not imported where it is unset

        start_sentry(settings.sentry_dsn)
        handlers.append(SentryHandler())
    logging.basicConfig(handlers=handlers, level=settings.log_level.upper(), force=True)
    logging.getLogger("aiosqlite").setLevel(logging.INFO)  # at DEBUG it logs statements' parameters
    logging.getLogger("alembic").setLevel(logging.WARNING)  # at INFO it names its own plugins
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of each query an outage ends
    for client in ("httpx", "urllib3"):  # at INFO they log addresses with their queries
        logging.getLogger(client).setLevel(logging.WARNING)
    for server in ("uvicorn", "uvicorn.access"):
        logging.getLogger(server).handlers.clear()
        logging.getLogger(server).propagate = True
    structlog.configure(
        processors=PROCESSORS,
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    for name, nearest in unknown_variables():
        structlog.get_logger(__name__).warning("settings.unknown", name=name, nearest=nearest)
