"""The routes, a module for each subject.

A new module here with a `router` is found by itself, in a subfolder, too.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter

from app.core.loading import load_module, modules_below


def routers() -> Iterator[APIRouter]:
    """The `router` of each module, in the order of their names.

    A package's own router stands for those below it, which it may include itself, behind a key,
    say. Raises SystemExit, with one line, for a module that can't be imported.
    """
    included: tuple[str, ...] = ()
    for name in modules_below(__name__):
        if name.startswith(included):
            continue
        found = load_module(name)
        if isinstance(router := getattr(found, "router", None), APIRouter):
            included += (f"{name}.",)
            yield router
