"""Finds the routes of an app."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def all_in(routes: Any) -> Iterator[Any]:
    """These routes, and those of the routers that were included."""
    for each in routes:
        yield each
        yield from all_in(getattr(getattr(each, "original_router", None), "routes", ()))
