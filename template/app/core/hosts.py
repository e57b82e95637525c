"""Under which names the API answers."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REFUSED = JSONResponse({"detail": "Host is none of ALLOWED_HOSTS"}, 400)


async def _known(scope: Scope, receive: Receive, send: Send) -> None:
    """Where Starlette goes on to for a host that it lets through."""


class KnownHosts(TrustedHostMiddleware):
    """Decides as Starlette does, and refuses as every error is answered: in JSON."""

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str]) -> None:
        super().__init__(_known, allowed_hosts, www_redirect=False)
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal: list[Message] = []

        async def note(message: Message) -> None:
            refusal.append(message)

        await super().__call__(scope, receive, note)
        await (REFUSED if refusal else self._app)(scope, receive, send)
