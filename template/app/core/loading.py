"""Loads the owner's modules, which may have mistakes, and reads the migrations.

Alembic is imported where it is used, because workers do without it.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection

if TYPE_CHECKING:
    from alembic.config import Config

APP = Path(__file__).parents[1]
NOT_THE_OWNERS = (Path(__file__), APP / "jobs")


def modules_below(package: str) -> list[str]:
    """The names of the modules below a package, in subfolders too, each package before its modules.

    A subfolder without an `__init__.py` counts, too. A file or folder whose name has a dot doesn't:
    editors name their copies so.
    """
    folder = APP.parent.joinpath(*package.split("."))
    paths = [file.relative_to(folder).with_suffix("").parts for file in folder.rglob("*.py")]
    names = [".".join((package, *parts)) for parts in paths if "." not in "".join(parts)]
    return sorted({name.removesuffix(".__init__") for name in names} - {package})


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


def alembic_config(**options: Any) -> Config:
    """What pyproject.toml says under `tool.alembic`."""
    from alembic.config import Config

    return Config(toml_file=APP.parent / "pyproject.toml", **options)


class Schema(NamedTuple):
    """The revisions of a database, compared with those of this release."""

    has: list[str]
    newer: list[str]  # those that this release doesn't know
    missing: list[str]  # this release's last ones that the database lacks


class Migrations:
    """The revisions of this release, as its files are now."""

    def __init__(self) -> None:
        from alembic.script import ScriptDirectory

        self._scripts = ScriptDirectory.from_config(alembic_config())
        self._known = self._up_to("heads")

    def compare(self, connection: Connection) -> Schema:
        from alembic.runtime.migration import MigrationContext

        has = {*MigrationContext.configure(connection).get_current_heads()}
        newer = has - self._known
        lacks = {*self._scripts.get_heads()} - self._up_to(*has - newer)
        # If the database has no revision of a branch, its newer revision is of that branch.
        missing = [each for each in lacks if not newer or has & self._up_to(each)]
        return Schema(sorted(has), sorted(newer), sorted(missing))

    def _up_to(self, *revisions: str) -> set[str]:
        """These, and all that must run before them."""
        steps = (self._scripts.iterate_revisions(each, "base") for each in revisions)
        return {script.revision for script in chain.from_iterable(steps)}


def _place(error: Exception) -> str:
    """The innermost line of the owner's code, to which the engine doesn't belong."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_owners(Path(frame.filename))]
    return f"{_shown(own[-1].filename)}, line {own[-1].lineno}" if own else "app"


def _is_owners(file: Path) -> bool:
    return file.is_relative_to(APP) and not any(map(file.is_relative_to, NOT_THE_OWNERS))


def _shown(file: str | None) -> str:
    """The file's path within the project."""
    path = Path(file or "")
    return str(path.relative_to(APP.parent) if path.is_relative_to(APP) else path)
