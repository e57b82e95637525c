"""The suite that an owner runs is the same on each machine, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.engine.devtools.started import unset
from tests.service import ROOT, copy_database

PART = ["tests/tasks", "tests/api/test_health.py"]
OWNERS = {
    "SENTRY_DSN": "https://key@sentry.example.com/1",
    "REQUEST_RATE": "1/hour",
    "QUEUES": '{"default": "pigeon"}',
}


def run_a_part(project: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a part of the suite in a copy of the project."""
    for name in ("app", "devtools", "migrations"):
        shutil.copytree(ROOT / name, project / name)
    shutil.copytree(ROOT / "tests", project / "tests", ignore=shutil.ignore_patterns("engine"))
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, project)
    command, environment = [sys.executable, "-m", "pytest", *PART, *arguments], unset() | env
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def test_the_suite_does_not_read_the_owners_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("\n".join(f"{name}={value}" for name, value in OWNERS.items()))
    ended = run_a_part(tmp_path, **OWNERS)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.postgresql
def test_the_suite_leaves_no_database_on_a_server_of_the_owner(tmp_path: Path) -> None:
    given = copy_database(os.environ["EMPTY_DATABASE"], tmp_path)
    before = databases(given)
    ended = run_a_part(tmp_path, "--database=postgresql", TEST_DATABASE_URL=given)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert databases(given) == before


def databases(server: str) -> set[str]:
    with psycopg.connect(server) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
