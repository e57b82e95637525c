"""A rendered compose file is brought up, and its containers are killed and replaced under load."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checks import missing
from tests.composed import APP, BESIDE, made_up, services
from tests.conftest import Project
from tests.marks import ALL
from tests.renders import ROOT
from tests.running import run

OBSERVED = "    profiles: [observability]\n"
NAPS = '''"""A job that takes a while."""

from __future__ import annotations

import asyncio

from app.jobs import task


@task(queue="orders")
async def nap(seconds: int) -> None:
    await asyncio.sleep(seconds)
'''


@pytest.mark.slow
@pytest.mark.renders("background", "arq-apscheduler", "celery", "celery-rabbitmq", ALL)
def test_compose_brings_it_up_and_rolls_over_under_load(project: Project, tmp_path: Path) -> None:
    """Orders are done while a replica is added, a worker killed and each service replaced.

    Brokers and Prometheus, the first service of the profile, are among them. No Grafana is here.
    """
    files = {**project.files, "app/tasks/naps.py": NAPS}
    files["compose.yaml"] = files["compose.yaml"].replace(OBSERVED, "", 1)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    hide_from_others(tmp_path)
    settings = made_up(project) | {"COMPOSE_FILE": str(tmp_path / "compose.yaml"), "PORT": "0"}
    settled = ["env", *(f"{name}={value}" for name, value in settings.items())]
    selection = project.render.selection
    host = selection.hosts()[selection.queues()["orders"]]
    others = sorted(set(services(project)) & (APP | BESIDE) - {"api", "migrate"})
    rollout = (sys.executable, ROOT / "tests" / "rollout.py", host)
    run(project, "compose", *settled, *bringing_up(tmp_path), *rollout, *others)


def hide_from_others(folder: Path) -> None:
    """Give the files the modes of umask 077. What containers mount must be readable for them."""
    for path in folder.rglob("*"):
        if path.relative_to(folder).parts[0] != "observability":
            path.chmod(0o700 if path.is_dir() else 0o600)


def bringing_up(folder: Path) -> list[str | Path]:
    """A command that brings the service up, runs its arguments, and takes the service down."""
    if shutil.which("docker") and succeeds("docker", "info"):
        up, down = "up --build --detach --wait", "down --volumes --rmi=local"
        script = f'trap "docker compose {down}" EXIT; docker compose {up} && "$@"'
        return ["bash", "-c", script, "compose"]
    if command := os.environ.get("COMPOSE_UP"):
        return ["env", f"UP_EXTRA={ROOT / 'tests' / 'images'}", command, "run", folder, "--"]
    raise missing("compose can't be brought up: neither Docker nor COMPOSE_UP is here")


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0
