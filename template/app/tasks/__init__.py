"""Tasks: what runs outside the request. A new module here is found by itself."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback
from pathlib import Path

from app.config import get_settings
from app.jobs.backends import registry


def load() -> None:
    """Import the modules of this package, so that all tasks are known; no module may connect.

    A worker's settings (`worker.py`) are for its own process. Raises SystemExit, with one line, for
    a module that can't be imported, and for a task whose queue nothing carries.
    """
    for module in pkgutil.iter_modules(__path__):
        if module.name != "worker":
            _import(f"{__name__}.{module.name}")
    for task in registry().values():
        if task.queue not in get_settings().queues:
            sys.exit(f"QUEUES: nothing carries {task.queue}, the queue of {task.name}")


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except SyntaxError as error:
        sys.exit(f"{_shown(error.filename)}, line {error.lineno}: {error.msg}: mend the file")
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        here = [frame for frame in frames if Path(frame.filename).parent == Path(__file__).parent]
        place = f"{_shown(here[-1].filename)}, line {here[-1].lineno}"
        text = (str(error).splitlines() or [""])[0]
        sys.exit(f"{place}: {type(error).__name__}: {text}: mend the file")


def _shown(file: str | None) -> str:
    """Its path as it is seen from the project."""
    path, project = Path(file or ""), Path(__file__).parents[2]
    return str(path.relative_to(project) if path.is_relative_to(project) else path)
