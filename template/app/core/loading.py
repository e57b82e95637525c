"""Imports modules that may have a mistake, because somebody has just written them."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

APP = Path(__file__).parents[1]
NOT_THE_OWNERS = (Path(__file__), APP / "jobs")


def load_module(name: str) -> ModuleType:
    """Import a module of the service.

    Raises SystemExit if that fails, with one line that has the file, the line and the error.
    """
    try:
        return importlib.import_module(name)
    except SyntaxError as error:
        sys.exit(f"{_shown(error.filename)}, line {error.lineno}: {error.msg}: mend the file")
    except Exception as error:
        text = (str(error).splitlines() or [""])[0]
        sys.exit(f"{_place(error)}: {type(error).__name__}: {text}: mend the file")


def _place(error: Exception) -> str:
    """The innermost line in the service's own code, which the engine isn't part of."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_owners(Path(frame.filename))]
    return f"{_shown(own[-1].filename)}, line {own[-1].lineno}" if own else "app"


def _is_owners(file: Path) -> bool:
    return file.is_relative_to(APP) and not any(map(file.is_relative_to, NOT_THE_OWNERS))


def _shown(file: str | None) -> str:
    """The file's path within the project."""
    path = Path(file or "")
    return str(path.relative_to(APP.parent) if path.is_relative_to(APP) else path)
