"""The API's stop: `ready` says so first, while requests are answered as before.

uvicorn closes its socket at SIGTERM, and what waits there to be accepted is lost. For DRAIN_SECONDS
before that, a load balancer finds out that it is to send no more.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.config import get_settings

log = structlog.get_logger(__name__)

_draining = threading.Event()


def is_draining() -> bool:
    """Whether this process will stop soon."""
    return _draining.is_set()


@contextmanager
def draining() -> Iterator[None]:
    """Let SIGTERM stop the server only after the drain; a second one stops it at once."""
    stop, seconds = signal.getsignal(signal.SIGTERM), get_settings().drain
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not (seconds and callable(stop) and in_main_thread):
        yield
        return
    loop = asyncio.get_running_loop()

    def begin(number: int, frame: FrameType | None) -> None:
        if is_draining():
            stop(number, frame)
        else:
            _draining.set()
            log.info("stopping: no more requests, please", seconds=seconds)
            loop.call_soon_threadsafe(loop.call_later, seconds, stop, number, None)

    signal.signal(signal.SIGTERM, begin)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, stop)


class LastAnswers:
    """While it drains, each answer ends its connection: the client uses it for no other request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, send_last if is_draining() else send)
