"""The routes of an app, and an app one of whose routes fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from app.main import create_app


def all_in(routes: Any) -> Iterator[Any]:
    """These routes, and those of the routers that were included."""
    for each in routes:
        yield each
        yield from all_in(getattr(getattr(each, "original_router", None), "routes", ()))


@asynccontextmanager
async def with_a_broken_route() -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app in this process, whose route `/broken` fails."""
    app = create_app()

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
