"""Tasks: what runs outside the request.

A new module here is found by itself, in a subfolder, too.
"""

from __future__ import annotations

import sys

from app.config import get_settings
from app.core.loading import load_module, modules_below
from app.jobs.backends import registry


def load() -> None:
    """Import all modules of this folder, so that all tasks are known. No module may connect.

    It leaves out `worker.py`, which is for a worker's process alone. Raises SystemExit, with one
    line, for a module that can't be imported, and for a task whose queue nothing carries.
    """
    for name in modules_below(__name__):
        if name != f"{__name__}.worker":
            load_module(name)
    for task in registry().values():
        if task.queue not in get_settings().queues:
            sys.exit(f"QUEUES: nothing carries {task.queue}, the queue of {task.name}")
