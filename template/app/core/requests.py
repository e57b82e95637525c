"""Gives each request an id, checks its host and length, and drains the API before it stops.

uvicorn closes its socket at SIGTERM, and requests that wait there are lost. So a stop begins with
DRAIN_SECONDS in which `/health/ready` answers 503 and all else is answered as before. In that time
a load balancer learns to send no more.
"""

from __future__ import annotations

import asyncio
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Protocol
from uuid import uuid4

import structlog
from fastapi import HTTPException, status
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, get_contextvars, unbind_contextvars

from app.config import get_settings

log = structlog.get_logger(__name__)

ID_HEADER = "X-Request-ID"
ID = "request_id"  # in lines of the log
# What proxies and clouds make, without the characters that a log or a shell would obey.
USABLE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/=+-]{0,99}")
HEALTH_CHECKS = ("/health/live", "/health/ready")
REFUSED = JSONResponse({"detail": "Host is none of ALLOWED_HOSTS"}, 400)

_draining = threading.Event()


class RequestIds:
    """Takes the client's id if it can be used, or else makes one.

    The answer has the id, and so have the log's lines about the request and its jobs.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get(ID_HEADER, "")
        request_id = given if USABLE_ID.fullmatch(given) else str(uuid4())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                header = ID_HEADER.lower().encode(), request_id.encode()
                message["headers"] = [*message.get("headers", []), header]
            await send(message)

        bind_contextvars(**{ID: request_id})
        await self._app(scope, receive, send_with_id)
        unbind_contextvars(ID)  # after an error it stays, for the error's answer and log


def current_request_id() -> str | None:
    """The id of the request that is answered here, or that submitted the job that runs here."""
    request_id: str | None = get_contextvars().get(ID)
    return request_id


async def _known(scope: Scope, receive: Receive, send: Send) -> None:
    """Starlette calls this for a host that it lets through."""


class KnownHosts(TrustedHostMiddleware):
    """Decides as Starlette does, but answers a refusal in JSON, like every error.

    Health checks may name any host: they name the address that they ask. No answer repeats it.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str]) -> None:
        super().__init__(_known, allowed_hosts, www_redirect=False)
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") in HEALTH_CHECKS:
            return await self._app(scope, receive, send)
        refusal: list[Message] = []

        async def note(message: Message) -> None:
            refusal.append(message)

        await super().__call__(scope, receive, note)
        await (REFUSED if refusal else self._app)(scope, receive, send)


class BodyLimit:
    """Answers 413 as soon as more than the limit was announced or read.

    It only counts what is read, so that a route which doesn't read the body never waits for it.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        announced, read = int(Headers(scope=scope).get("content-length", 0)), 0

        async def counted() -> Message:
            nonlocal read
            self._check(announced)
            message = await receive()
            read += len(message.get("body", b""))
            self._check(read)
            return message

        await self._app(scope, counted, send)

    def _check(self, size: int) -> None:
        if size > self._limit:
            detail = f"the body is over {self._limit} bytes"
            raise HTTPException(status.HTTP_413_CONTENT_TOO_LARGE, detail)


class _Host(Protocol):
    def stop_looking(self) -> None: ...


def is_draining() -> bool:
    """Whether this process will stop soon."""
    return _draining.is_set()


@contextmanager
def draining(hosts: Sequence[_Host]) -> Iterator[None]:
    """Let SIGTERM stop the server only after DRAIN_SECONDS. A second SIGTERM stops it at once.

    From then on the hosts take no more jobs, though the server may still wait for requests.
    """
    stop_server, seconds = signal.getsignal(signal.SIGTERM), get_settings().drain
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not (callable(stop_server) and in_main_thread):
        yield
        return
    loop = asyncio.get_running_loop()

    def stop(number: int, frame: FrameType | None) -> None:
        for host in hosts:
            host.stop_looking()
        stop_server(number, frame)

    def begin(number: int, frame: FrameType | None) -> None:
        if is_draining() or not seconds:
            stop(number, frame)
        else:
            _draining.set()
            log.info("api.draining", seconds=seconds)
            loop.call_soon_threadsafe(loop.call_later, seconds, stop, number, None)

    signal.signal(signal.SIGTERM, begin)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, stop_server)


class LastAnswers:
    """While the API drains, each answer ends its connection, so that no other request uses it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, send_last if is_draining() else send)
