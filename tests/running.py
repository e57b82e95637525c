"""Runs commands in a rendered service, each with a log that can be followed."""

import fcntl
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from extensions.context import NAMES, PYTHON_VERSIONS, REQUIREMENTS, Selection
from tests.checks import missing
from tests.conftest import Project
from tests.renders import ROOT, shared_by_services, uv_command, uv_environment

LOGS = ROOT / ".renders" / "logs"
TYPES = ROOT / ".renders" / "types"
LIMIT = 60  # minutes, twice what the longest command takes on a busy machine
ON_AN_OLDER_PYTHON = {"background": {"UV_PYTHON": "3.12"}}
NOTHING_TESTED = re.compile(r"^Exit: nothing was tested: (.+)", re.MULTILINE)


def run(project: Project, what: str, *command: str | Path, **env: str) -> str:
    """Run a command in the project; returns its output. Fails the test if the command fails."""
    LOGS.mkdir(parents=True, exist_ok=True)
    path = LOGS / f"{project.name}-{what}.log"
    with path.open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=project.folder,
            env={**uv_environment(), **ON_AN_OLDER_PYTHON.get(project.name, {}), **env},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        failure = _wait(process)
    text = path.read_text("utf-8", "replace")
    if found := NOTHING_TESTED.search(text):
        raise missing(found[1])
    if failure:
        pytest.fail(_report(project, f"{what} {failure}", path, text), pytrace=False)
    return text


def _wait(process: subprocess.Popen[bytes]) -> str:
    """How the command failed; an empty text if it succeeded."""
    try:
        code = process.wait(LIMIT * 60)
        return f"ended with {code}" if code else ""
    except subprocess.TimeoutExpired:
        return f"didn't end within {LIMIT} minutes"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _report(project: Project, what: str, path: Path, text: str) -> str:
    tail = "\n".join(text.splitlines()[-80:])
    return f"{tail}\n\n{project.name}: {what}; all of it is in {path.relative_to(ROOT)}"


def run_tests(project: Project, what: str, *command: str | Path, **env: str) -> None:
    """Run tests of a service. In CI, which lacks nothing, none of them may be skipped."""
    log = run(project, what, *command, **env)
    if os.environ.get("CI") == "true":
        assert "skipped" not in log.splitlines()[-1], "in CI no test may be skipped"


def suite_in_shared(project: Project, what: str, *options: str) -> None:
    """Run tests of a service in an environment that services share."""
    command = (uv_command(), "run", "--exact", "pytest", *options)
    run_tests(project, what, *command, **shared_by_services())


def conformance(project: Project, suite: str, database: str, marks: str) -> None:
    """Run `tests/engine/delivery` or `tests/engine/schedules` of a render."""
    what = f"{suite}-{marks}-{database}".replace(" ", "-")
    command = (uv_command(), "run", "pytest", f"tests/engine/{suite}", "--database", database)
    run(project, what, *command, "-m", marks)


@cache
def type_checker(apscheduler: str) -> Path:
    """The Python of an environment that has the dependencies of all services."""
    selection = Selection(NAMES, apscheduler=apscheduler, engine_tests=True)
    requirements = [r for group in REQUIREMENTS for r in selection.dependencies(group)]
    uv, environment = uv_command(), uv_environment()
    folder = TYPES / f"apscheduler-{apscheduler}"
    python = folder / "bin" / "python"
    with _one_at_a_time(TYPES):
        if not python.is_file():
            create: list[str | Path] = [uv, "venv", "-q", "--python", "3.12", folder]
            subprocess.run(create, env=environment, check=True)
        install: list[str] = [uv, "pip", "install", "-q", "--python", str(python), *requirements]
        subprocess.run(install, env=environment, check=True)
    return python


def check_types(project: Project, what: str) -> None:
    """Check the types for the oldest Python that a service may run on."""
    version = project.render.apscheduler
    mypy = type_checker(version), "-m", "mypy", "--python-version", PYTHON_VERSIONS[0]
    with types_known(version) as cache:
        run(project, what, *mypy, MYPY_CACHE_DIR=cache)


def check_types_of(folder: Path, *packages: str) -> None:
    """Check the types of packages beside those of a service that has every back end."""
    mypy = [str(type_checker("3")), "-m", "mypy", "--strict", *packages]
    with types_known("3") as cache:
        env = {**os.environ, "MYPY_CACHE_DIR": cache}
        done = subprocess.run(mypy, cwd=folder, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout


@contextmanager
def types_known(apscheduler: str) -> Iterator[str]:
    """mypy's cache, which services share. One process at a time has it."""
    cache = ROOT / ".mypy_cache" / f"apscheduler-{apscheduler}"
    with _one_at_a_time(cache):
        yield str(cache)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
