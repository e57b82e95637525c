"""Tasks: what runs outside the request. A new module here is found by itself."""

from __future__ import annotations

import pkgutil
import sys

from app.config import get_settings
from app.core.loading import load_module
from app.jobs.backends import registry


def load() -> None:
    """Import the modules of this package, so that all tasks are known. No module may connect.

    It leaves out `worker.py`, which is for a worker's process alone. Raises SystemExit, with one
    line, for a module that can't be imported, and for a task whose queue nothing carries.
    """
    for module in pkgutil.iter_modules(__path__):
        if module.name != "worker":
            load_module(f"{__name__}.{module.name}")
    for task in registry().values():
        if task.queue not in get_settings().queues:
            sys.exit(f"QUEUES: nothing carries {task.queue}, the queue of {task.name}")
