"""Prepares release 0.1.0, from its archive, and the working tree to run side by side.

Both have environments of their own, with the requirements of their own `pyproject.toml`.
"""

import json
import os
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from copier import run_copy

from tests.renders import RENDERS, ROOT, Render, shared_by_services, uv_command, uv_environment
from updates.history import repository

RELEASED = "v0.1.0"
INSIDE = Path(__file__).parent / "inside"
NOT_COPIED = shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache")

# The tests of deploys add these lines to each release, so that an order's job is recorded, too.
EDITS = {
    "from app.models import Order\n": "from app.tasks.deployed import record\n",
    '    order.status = "processed"\n': (
        "    record(order.item)\n"
        '    db.add(Order(item=f"processed {order.item}", quantity=order.quantity))\n'
    ),
}


@dataclass(frozen=True)
class Release:
    """A copy of a rendered service, with the probes among its tasks."""

    folder: Path
    programs: Path

    @property
    def commands(self) -> dict[str, str]:
        """The command of each process, by the process's name."""
        return dict(self._module("commands")["COMMANDS"])

    @property
    def hosts(self) -> dict[str, str]:
        """The name of the process that runs each back end's jobs."""
        return dict(self._module("commands")["HOSTS"])

    def _module(self, name: str) -> dict[str, Any]:
        return runpy.run_path(str(self.folder / "devtools" / f"{name}.py"))

    def env(self, **more: str) -> dict[str, str]:
        """The variables for a process of this release. Its own programs come first on the path."""
        usual = uv_environment()
        path = os.pathsep.join([str(self.programs), usual["PATH"]])
        return usual | {"PATH": path, "PYTHONPATH": ".", "PYTHONUNBUFFERED": "1"} | more


def released(name: str) -> Path:
    """Render release 0.1.0."""
    folder = ROOT / ".renders" / "released" / name
    with TemporaryDirectory() as history:
        run_copy(
            str(repository(Path(history) / "template")),
            folder,
            data=RENDERS[name].answers,
            vcs_ref=RELEASED,
            defaults=True,
            overwrite=True,
            quiet=True,
            unsafe=True,
        )
    return folder


def programs(rendered: Path, place: str) -> Path:
    """Install the requirements of a render; returns the folder of its programs.

    Renders share the environment: the one that had this place before has it no more.
    """
    shared = shared_by_services(place)
    command = [uv_command(), "sync", "-q"]
    subprocess.run(command, cwd=rendered, env=uv_environment() | shared, check=True)
    return Path(shared["UV_PROJECT_ENVIRONMENT"]) / "bin"


def copied(rendered: Path, folder: Path) -> Release:
    """Copy a render, and add the modules that these tests need."""
    shutil.copytree(rendered, folder, ignore=NOT_COPIED)
    add_inside(folder)
    return Release(folder, programs(rendered, folder.name))


def add_inside(service: Path) -> None:
    """Add the package `inside`, and the tasks that only these tests have."""
    shutil.copytree(INSIDE, service / "inside", ignore=NOT_COPIED)
    (service / "inside" / "probes.py").rename(service / "app" / "tasks" / "deployed.py")
    _record_orders(service / "app" / "tasks" / "orders.py")


def _record_orders(path: Path) -> None:
    text = path.read_text("utf-8")
    for line, added in EDITS.items():
        assert text.count(line) == 1, f"{path.name} has no line {line!r} to put the record after"
        text = text.replace(line, line + added)
    path.write_text(text, "utf-8")


def addresses(render: Render) -> list[str]:
    """The variables with the addresses of the render's brokers."""
    return [f"{name.upper()}_URL" for name in render.brokers]


@contextmanager
def real_servers(release: Release, folder: Path, *variables: str) -> Iterator[dict[str, str]]:
    """Start the servers that these variables name; yields their addresses."""
    command = ["python", "-m", "inside.real_servers", str(folder), *variables]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=release.folder, env=release.env(), stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdin and process.stdout
        try:
            addresses: dict[str, str] = json.loads(process.stdout.readline())
            yield addresses
        finally:
            process.stdin.close()
