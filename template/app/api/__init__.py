"""The routes, a module for each subject. A new module here with a `router` is found by itself."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator

from fastapi import APIRouter

from app.core.loading import load_module


def routers() -> Iterator[APIRouter]:
    """The `router` of each module, in the order of their names.

    Raises SystemExit, with one line, for a module that can't be imported.
    """
    for module in pkgutil.iter_modules(__path__):
        found = load_module(f"{__name__}.{module.name}")
        if isinstance(router := getattr(found, "router", None), APIRouter):
            yield router
