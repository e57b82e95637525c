"""What holds for each rendered service when it runs, in an environment of its own."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from benchmarks.rendered import add_bench
from extensions.context import NAMES, PYTHON_VERSIONS, REQUIREMENTS, Selection
from tests.conftest import Project
from tests.renders import RENDERS, ROOT, render, uv_command, uv_environment
from tests.test_render import PLAIN

LOGS = ROOT / ".renders" / "logs"
TYPES = ROOT / ".renders" / "types"
MINUTES = 60

# Tests of the engine, of the ground and of each service's routes: no answer changes them, and each
# single back end runs them.
THE_SAME = (
    "jobs",
    *(f"core/test_{name}.py" for name in ("control", "database", "logging", "sqlite")),
    *(f"api/test_{name}.py" for name in ("garbage_rows", "pages", "production", "rates")),
    *(f"api/test_{name}.py" for name in ("refused_bodies", "schedule_refusals")),
    "api/test_unusable_database.py",
    "test_migrations.py",
)
WHERE_REDIS_IS = ("api/test_shared_rates.py",)
WHAT_THEY_TEST = (
    "app/jobs",
    "app/migrate.py",
    "migrations",
    "app/services",
    "app/schemas/shown.py",
    *(f"app/api/{name}.py" for name in ("errors", "health", "jobs", "orders", "routing")),
    "app/api/schedules.py",
    *(f"app/core/{name}.py" for name in ("addresses", "bodies", "clock", "control", "database")),
    *(f"app/core/{name}.py" for name in ("draining", "hosts", "logging", "outages", "rates")),
    *(f"app/core/{name}.py" for name in ("security", "sqlite", "threads", "unreadable")),
)


def test_types(project: Project) -> None:
    """By the oldest Python that it may run on."""
    oldest = ("--python-version", PYTHON_VERSIONS[0])
    run(project, "types", type_checker(project.render.apscheduler), "-m", "mypy", *oldest)


def test_what_single_back_ends_test_is_the_same_everywhere() -> None:
    """Neither its files nor their names have a condition."""
    template = ROOT / "template"
    tests = template / "tests" / "{% if engine_tests %}engine{% endif %}"
    for place in [*map(tests.joinpath, THE_SAME), *map(template.joinpath, WHAT_THEY_TEST)]:
        files = [place] if place.is_file() else [*place.rglob("*.*")]
        assert files
        assert [path.name for path in files if path.suffix == ".jinja" or "{%" in path.name] == []


def test_its_dependencies_are_those_that_it_imports(project: Project) -> None:
    # Commands, a driver that is named in a URL, and what APScheduler 4 fails without.
    unseen = ["uvicorn", "aiosqlite", "flower", "sniffio", "anyio"]
    folders = ["app", "devtools", "migrations", "tests"]
    known = [f"--known-first-party={folder}" for folder in folders]
    # devtools runs where a service is developed alone.
    ignored = f"--per-rule-ignores=DEP002={'|'.join(unseen)},DEP004=watchfiles"
    python = type_checker(project.render.apscheduler)
    [packages] = python.parent.parent.glob("lib/*/site-packages")
    command = [sys.executable, "-m", "deptry", "--no-ansi", *known, ignored, *folders]
    environment = {**os.environ, "PYTHONPATH": str(packages)}  # which module is of which package
    done = subprocess.run(
        command, cwd=project.folder, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_suite(project: Project) -> None:
    # APScheduler 4 has its store in PostgreSQL alone.
    can = project.render.selection.capabilities()
    database = "postgresql" if can["has_apscheduler_4"] else "sqlite"
    several = len(project.render.backends) > 1
    left_out = [f"--ignore=tests/engine/{name}" for name in (*THE_SAME, *WHERE_REDIS_IS) if several]
    log = run(project, "suite", uv_command(), "run", "pytest", "--database", database, *left_out)
    if os.environ.get("CI") == "true":
        assert "skipped" not in log.splitlines()[-1], "CI has all that the tests need"


@PLAIN
def test_the_owners_suite(plain: Project) -> None:
    """Without the tests of the engine."""
    run(plain, "plain-types", type_checker(plain.render.apscheduler), "-m", "mypy")
    run(plain, "plain-suite", uv_command(), "run", "pytest")


@cache
def type_checker(apscheduler: str) -> Path:
    """One environment that has all the dependencies: a rendered suite runs in its own."""
    selection = Selection(NAMES, apscheduler=apscheduler, engine_tests=True)
    requirements = [r for group in REQUIREMENTS for r in selection.dependencies(group)]
    uv, environment = uv_command(), uv_environment()
    folder = TYPES / f"apscheduler-{apscheduler}"
    python = folder / "bin" / "python"
    with _one_at_a_time():
        if not python.is_file():
            create: list[str | Path] = [uv, "venv", "-q", "--python", "3.12", folder]
            subprocess.run(create, env=environment, check=True)
        install: list[str] = [uv, "pip", "install", "-q", "--python", str(python), *requirements]
        subprocess.run(install, env=environment, check=True)
    return python


def run(project: Project, what: str, *command: str | Path) -> str:
    """Run in the project, with its output in a log that can be followed."""
    LOGS.mkdir(parents=True, exist_ok=True)
    path = LOGS / f"{project.name}-{what}.log"
    with path.open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=project.folder,
            env={**uv_environment(), "MYPY_CACHE_DIR": _mypy_cache(project, what)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code = _wait(process)
    text = path.read_text("utf-8", "replace")
    if code != 0:
        pytest.fail(_report(project, what, path, text), pytrace=False)
    return text


def _mypy_cache(project: Project, what: str) -> str:
    """What services have in common is checked once by each process of this run."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    return str(ROOT / ".mypy_cache" / worker / what / project.render.apscheduler)


def _wait(process: subprocess.Popen[bytes]) -> int | str:
    try:
        return process.wait(10 * MINUTES)
    except subprocess.TimeoutExpired:
        return "timeout"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _report(project: Project, what: str, path: Path, text: str) -> str:
    tail = "\n".join(text.splitlines()[-80:])
    return f"{tail}\n\n{project.name}: {what} failed; all of it is in {path.relative_to(ROOT)}"


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    TYPES.mkdir(parents=True, exist_ok=True)
    with (TYPES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_the_benchmark_fits(tmp_path: Path) -> None:
    """It runs, and is checked, inside a rendered service; one that has every back end."""
    render(RENDERS["-".join(NAMES)].answers, tmp_path)
    add_bench(tmp_path)
    mypy = [str(type_checker("3")), "-m", "mypy", "--strict"]
    for packages in (["-p", "bench", "-p", "control"], ["--ignore-missing-imports", "-p", "peers"]):
        done = subprocess.run([*mypy, *packages], cwd=tmp_path, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout
