"""Lists every set of answers that is rendered, and renders it."""

import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from copier import run_copy
from copier.errors import DirtyLocalWarning

from extensions.context import BROKERS, NAMES, Selection

ROOT = Path(__file__).parents[1]
KEPT = {".venv", "uv.lock"}


@dataclass(frozen=True)
class Render:
    """One set of answers."""

    backends: tuple[str, ...]
    broker: str = "redis"
    apscheduler: str = "3"
    engine_tests: bool = True

    @property
    def name(self) -> str:
        """The name for `pytest -k` and `scripts.render`."""
        variants = [v for v in (self.broker, self.apscheduler) if v not in ("redis", "3")]
        return "-".join([*self.backends, *variants])

    @property
    def answers(self) -> dict[str, Any]:
        """The answers for Copier. Other questions have their defaults."""
        return {
            "backends": list(self.backends),
            "celery_broker": self.broker,
            "apscheduler_version": self.apscheduler,
            "engine_tests": self.engine_tests,
        }

    @property
    def brokers(self) -> list[str]:
        """The brokers that the service needs."""
        can = self.selection.capabilities()
        return [name for name in BROKERS if can[f"needs_{name}"]]

    @property
    def database(self) -> str:
        """The database that its suite runs on. APScheduler 4 needs PostgreSQL for its store."""
        can = self.selection.capabilities()
        return "postgresql" if can["has_apscheduler_4"] else "sqlite"

    @property
    def selection(self) -> Selection:
        """The catalogue's description of this choice."""
        return Selection(self.backends, self.broker, self.apscheduler, self.engine_tests)


def _renders() -> Iterator[Render]:
    """The longest suites come first, so that none is left when the other processes have ended."""
    yield Render(("celery",), "rabbitmq")
    yield Render(("apscheduler",), apscheduler="4")
    yield from (Render((name,)) for name in NAMES)
    yield Render(NAMES, "rabbitmq")
    yield Render(NAMES, apscheduler="4")
    for size in range(len(NAMES), 1, -1):
        yield from map(Render, combinations(NAMES, size))


RENDERS = {render.name: render for render in _renders()}

# A test run renders these. Others are rendered if they are asked for by name.
TESTED = tuple(RENDERS)


def render(answers: dict[str, Any], folder: Path) -> None:
    """Render the working tree into the folder, and keep an environment that is there."""
    _remove_previous(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DirtyLocalWarning)
        run_copy(
            str(ROOT),
            folder,
            data=answers,
            vcs_ref="HEAD",
            defaults=True,
            overwrite=True,
            quiet=True,
            unsafe=True,
        )


def replace_with(rendered: Path, folder: Path) -> None:
    """Move a render into the folder, and keep an environment that is there."""
    _remove_previous(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in rendered.iterdir():
        shutil.move(path, folder)


def _remove_previous(folder: Path) -> None:
    """Remove the previous render: the template may no longer have one of its files."""
    for path in folder.glob("*"):
        if path.name in KEPT:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def uv_command() -> str:
    """uv's own path: a version manager's shim may refuse a folder with a `.python-version`."""
    return os.environ.get("UV", "uv")


def uv_environment() -> dict[str, str]:
    """Variables for commands in a render. Bytecode is written, so that each file compiles once.

    The system's Python comes first: a version manager's is often built without optimizations, and
    takes half as long again.
    """
    ours = {"PYTHONDONTWRITEBYTECODE", "UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    interpreters = Path.home().glob(".pyenv/versions/3.1[1-3].*/bin")
    path = [part for part in kept["PATH"].split(os.pathsep) if part != str(ROOT / ".venv/bin")]
    first = ["/usr/bin", *sorted(map(str, interpreters), reverse=True)]
    return kept | {"PATH": os.pathsep.join([*first, *path])}


def shared_by_services(place: str = "service") -> dict[str, str]:
    """Variables for an environment and known types that services share, one after the other.

    So each file of a library is compiled and checked once. `uv sync` and `uv run --exact` take what
    a service doesn't require out of the environment.
    """
    name = f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')}-{place}"
    return {
        "UV_PROJECT_ENVIRONMENT": str(ROOT / ".renders" / "environments" / name),
        "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / name),
    }
