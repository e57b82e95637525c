"""Checks each message before a worker takes it, so that none can end the worker.

Whoever writes to the broker may write anything. A job's message is reduced to the job's id, because
its row decides all else. A native task's message is checked as far as Celery relies on it. Any
other message is dropped with one line in the log, which shows neither arguments nor headers.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import structlog
from celery.app.task import Context
from celery.canvas import Signature as Canvas
from kombu import Message
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.core.database import UNKEPT
from app.core.outages import may_tell_of
from app.jobs.backends import registry

log = structlog.get_logger(__name__)

SHOWN = 100  # characters of a name in the log

TAKEN = {name for name in dir(Context) if not name.startswith("__")}  # no header may have them


def _moment(text: str) -> str:
    """Refuse times that some time zone would put outside the calendar."""
    if not 1971 <= datetime.fromisoformat(text).year <= 9000:
        raise ValueError("no moment that a worker can wait for")
    return text


def _kept(text: str) -> str:
    if UNKEPT.search(text):
        raise ValueError("no text that a database keeps")
    return text


def _subtype(name: str) -> str:
    if name not in Canvas.TYPES:
        raise ValueError("no kind of signature")
    return name


# No longer than a result's row allows.
Name = Annotated[str, Field(min_length=1, max_length=155), AfterValidator(_kept)]
Moment = Annotated[str, AfterValidator(_moment)]
Number = Annotated[int, Field(ge=0, le=2**31)]
Seconds = Annotated[float, Field(gt=0, le=10**9)]


class RefusedError(Exception):
    """A message is refused. The error's text shows nothing of it."""


class Uncompressed(Message):  # type: ignore[misc]
    """Refuses a compressed body, which kombu would decompress at once, however long it becomes."""

    def __init__(self, body: Any = None, headers: Any = None, **options: Any) -> None:
        if headers and headers.get("compression"):
            self.errors = [(RefusedError, RefusedError("a compressed message"), None)]
        super().__init__(body, headers=headers, **options)


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class Signature(Strict):
    """A task to send when another one has ended."""

    task: Name
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    subtask_type: Annotated[str, AfterValidator(_subtype)] | None = None
    immutable: bool = False


class Embedded(Strict, extra="forbid"):
    """The tasks that follow a native task."""

    callbacks: list[Signature] | None = None
    errbacks: list[Signature] | None = None
    chain: list[Signature] | None = None
    chord: Signature | None = None


class Headers(Strict, extra="allow"):
    """The headers of a native task's message."""

    task: Name
    id: Name
    root_id: Name | None = None
    parent_id: Name | None = None
    group: Name | None = None
    group_index: Number | None = None
    shadow: Name | None = None
    origin: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    eta: Moment | None = None
    expires: Moment | None = None
    retries: Number = 0
    timelimit: Annotated[list[Seconds | None], Field(min_length=2, max_length=2)] | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: Number = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, str | list[str]] | None = None


class Properties(Strict):
    """The properties of a message that Celery sends."""

    correlation_id: Name | None = None
    reply_to: Name | None = None


NATIVE_BODY: TypeAdapter[Any] = TypeAdapter(
    tuple[list[Any], dict[str, Any], Embedded], config=ConfigDict(strict=True)
)


def admit(message: Message) -> None:
    """Reduce or check a message before Celery gets it. Raises if it must be dropped."""
    name = message.headers.get("task")
    if isinstance(name, str) and name in registry():
        _reduce(message, name)
    else:
        _check(message)


def _reduce(message: Message, name: str) -> None:
    try:
        [job_id], _, _ = message.payload
        job_id = str(UUID(job_id))
    except (TypeError, ValueError, AttributeError):
        raise RefusedError("a job's message has its id alone") from None
    message.headers = {"lang": "py", "task": name, "id": job_id, "ignore_result": True}
    message.properties = {"correlation_id": job_id}
    message._decoded_cache = [[job_id], {}, {}]
    message.body = json.dumps(message._decoded_cache)


def _check(message: Message) -> None:
    headers = Headers.model_validate(message.headers)
    if taken := TAKEN & set(headers.model_extra or ()):
        raise RefusedError(f"no header may be called {min(taken)}")
    Properties.model_validate(message.properties)
    NATIVE_BODY.validate_python(tuple(message.payload))


def why(error: Exception) -> str:
    """Why a message is refused, without any of its content."""
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return ": ".join([*map(str, first["loc"]), first["msg"]])[:SHOWN]
    return str(error) if isinstance(error, RefusedError) else type(error).__name__


def said(error: Exception) -> str:
    """The error in one line, without the command that failed, which may contain a message."""
    text = str(error).rpartition("caused error: ")[2] or " "
    return f"{type(error).__name__}: {text.splitlines()[0]}"


def tell_failed(event: str, error: Exception) -> None:
    """Log a line about what the broker refuses, one a second at most."""
    if may_tell_of(event):
        log.warning(event, error=said(error))


def tell_dropped(queue: object, error: Exception, task: object = None) -> None:
    """Log one line about a message that is dropped."""
    names = {"queue": queue, "task": task}
    shown = {key: str(name)[:SHOWN] for key, name in names.items() if name is not None}
    log.warning("message.dropped", why=why(error), **shown)
