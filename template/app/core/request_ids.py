"""Gives each request an id. Its answer has it, and the log's lines about it and its jobs."""

from __future__ import annotations

import re
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, get_contextvars, unbind_contextvars

HEADER = "X-Request-ID"
NAME = "request_id"
# The ids that proxies and clouds make; no character that a log or a shell would obey.
USABLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/=+-]{0,99}")


class RequestIds:
    """Takes the client's id if it can be used, or else makes one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if USABLE.fullmatch(given) else str(uuid4())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                header = HEADER.lower().encode(), request_id.encode()
                message["headers"] = [*message.get("headers", []), header]
            await send(message)

        bind_contextvars(**{NAME: request_id})
        await self._app(scope, receive, send_with_id)
        unbind_contextvars(NAME)  # after an error it stays, for the error's answer and log


def current_request_id() -> str | None:
    """The id of the request that is answered here, or that submitted the job that runs here."""
    request_id: str | None = get_contextvars().get(NAME)
    return request_id
