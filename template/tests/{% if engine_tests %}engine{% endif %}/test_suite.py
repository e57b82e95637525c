"""The suite that an owner runs is the same on each machine, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import psycopg
import pytest

from devtools.processes import free_port, wait_until
from tests.engine.devtools.started import ends_with_all, unset
from tests.service import ROOT, copy_database

PART = ["tests/tasks", "tests/api/test_health.py"]
OWNERS = {
    "SENTRY_DSN": "https://key@sentry.example.com/1",
    "REQUEST_RATE": "1/hour",
    "QUEUES": '{"default": "pigeon"}',
}


def copy_to(project: Path) -> None:
    for name in ("app", "devtools", "migrations"):
        shutil.copytree(ROOT / name, project / name)
    shutil.copytree(ROOT / "tests", project / "tests", ignore=shutil.ignore_patterns("engine"))
    shutil.copy(ROOT / "pyproject.toml", project)


def run_a_part(project: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a part of the suite in a copy of the project."""
    copy_to(project)
    return run_pytest(project, *arguments, **env)


def run_pytest(project: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command, environment = [sys.executable, "-m", "pytest", *PART, *arguments], unset() | env
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def test_the_suite_does_not_read_the_owners_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("\n".join(f"{name}={value}" for name, value in OWNERS.items()))
    ended = run_a_part(tmp_path, **OWNERS)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_broken_task_is_one_line(tmp_path: Path) -> None:
    copy_to(tmp_path)
    (tmp_path / "app" / "tasks" / "broken.py").write_text("def broken(:")
    ended = run_pytest(tmp_path)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "app/tasks/broken.py, line 1: invalid syntax: mend the file" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_database_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    nobody = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    ended = run_a_part(tmp_path, "--database=postgresql", TEST_DATABASE_URL=nobody)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "Connection refused" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_ended_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    """An IDE's stop button sends SIGTERM, a closed terminal SIGHUP."""
    copy_to(tmp_path)
    command = [sys.executable, "-m", "pytest", *PART, "--database=postgresql"]
    with subprocess.Popen(command, cwd=tmp_path, env=unset(), stdout=subprocess.DEVNULL) as run:
        wait_until(lambda: any("uvicorn" in name for name in commands(run)), run, 60)
        ends_with_all(run, partial(run.send_signal, number), 30)


def commands(run: subprocess.Popen[bytes]) -> list[str]:
    """The commands of the processes that the run has started."""
    found = []
    for child in psutil.Process(run.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found.append(" ".join(child.cmdline()))
    return found


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
