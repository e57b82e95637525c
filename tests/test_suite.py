"""Runs the tests of each rendered service, in an environment of its own."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from benchmarks.rendered import add_bench
from extensions.answers import check_slug
from extensions.context import NAMES
from tests.checks import none
from tests.conftest import Project
from tests.left_out import (
    IN_CI,
    IN_PARTS,
    LAUNCH,
    PARTS,
    RATES,
    RENDERED,
    RUN_BY,
    SLOW,
    TESTS,
    THE_SAME,
    TWO,
    WHOLE,
    is_named,
    left_out_of,
    of_one_back_end,
    parts_later,
    run_by_others,
)
from tests.marks import ALL, PLAIN, SEVERAL
from tests.renders import RENDERS, ROOT, Render, render, uv_command
from tests.running import (
    check_types,
    check_types_of,
    run,
    run_tests,
    suite_in_shared,
    type_checker,
)

WHAT_THEY_TEST = (
    "app/jobs",
    "app/cli",
    "app/migrate.py",
    "app/ops",
    "migrations",
    "app/services",
    "app/schemas/response.py",
    *(f"app/api/{name}.py" for name in ("errors", "health", "jobs", "orders", "queues")),
    *(f"app/api/{name}.py" for name in ("routing", "schedules")),
    *(f"app/core/{name}.py" for name in ("concurrency", "control", "database", "drivers")),
    *(f"app/core/{name}.py" for name in ("loading", "logging", "outages", "values")),
    "app/core/requests.py",
    *(f"devtools/{name}.py" for name in ("dev", "postgresql", "processes", "supervisor")),
)
WHAT_REDIS_CHANGES = "app/core/security.py.jinja"


def test_types(project: Project) -> None:
    check_types(project, "types")


def test_what_two_services_test_is_the_same_everywhere() -> None:
    """Neither these files nor their names contain a condition."""
    tested = map((ROOT / "template").joinpath, WHAT_THEY_TEST)
    for place in [*map(TESTS.joinpath, THE_SAME), *tested]:
        files = [place] if place.is_file() else [*place.rglob("*.*")]
        assert files
        assert [path.name for path in files if path.suffix == ".jinja" or "{%" in path.name] == []
    text = (ROOT / "template" / WHAT_REDIS_CHANGES).read_text()
    conditions = re.findall(r"{% if (?:not )?(\w+) %}", text)
    assert set(conditions) == {"needs_redis"}


def test_its_dependencies_are_those_that_it_imports(project: Project) -> None:
    # Commands, a driver that only a URL names, and packages that APScheduler 4 needs.
    unseen = ["uvicorn", "aiosqlite", "flower", "sniffio", "anyio"]
    folders = ["app", "devtools", "migrations", "tests"]
    known = [f"--known-first-party={folder}" for folder in folders]
    # devtools runs only where a service is developed.
    ignored = f"--per-rule-ignores=DEP002={'|'.join(unseen)},DEP004=watchfiles"
    python = type_checker(project.render.apscheduler)
    [packages] = python.parent.parent.glob("lib/*/site-packages")
    command = [sys.executable, "-m", "deptry", "--no-ansi", *known, ignored, *folders]
    environment = {**os.environ, "PYTHONPATH": str(packages)}  # it says which package has a module
    done = subprocess.run(
        command, cwd=project.folder, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_suite(project: Project) -> None:
    """The owner's tests, and with one back end the engine's.

    The owner's run in the plain render where a single back end has one.
    """
    if project.name in SEVERAL:
        suite_in_shared(project, "suite", *options_of(project.render, ["engine"]))
    else:
        where = "tests/engine" if project.name in PLAIN.args else "tests"
        engines_suite(project, "suite", left_out_of(project.render), where)


def test_no_service_has_the_name_of_a_package(project: Project) -> None:
    """uv takes a service of that name for the package, and then resolves nothing."""
    run(project, "lock", uv_command(), "lock")
    locked = tomllib.loads((project.folder / "uv.lock").read_text("utf-8"))["package"]
    names = [each["name"] for each in locked if "editable" not in each["source"]]
    assert len(names) > 50
    none([f"missing in extensions/packages.txt: {name}" for name in names if not check_slug(name)])


@pytest.mark.slow
@pytest.mark.parts
@pytest.mark.renders(*SEVERAL)
def test_the_engines_suite_of_several(project: Project) -> None:
    options = options_of(project.render, left_out_of(project.render))
    suite_in_shared(project, "engines-suite", *options, "tests/engine")


@pytest.mark.slow
@pytest.mark.parts
@pytest.mark.renders(*IN_CI, also=())
def test_parts(project: Project) -> None:
    run_parts(project)


@pytest.mark.night
@pytest.mark.parts
@pytest.mark.renders(*(name for name in WHOLE if name not in IN_CI), also=())
def test_parts_by_night(project: Project) -> None:
    run_parts(project)


def run_parts(project: Project) -> None:
    tests, left_out = project.folder / "tests", run_by_others(project.render)
    own = [name for name in parts_later(project.render) if name not in left_out]
    there = [f"tests/{name}" for name in own if (tests / name).exists()]
    engines_suite(project, "parts", left_out, *there)


def engines_suite(project: Project, what: str, left_out: list[str], *tests: str) -> None:
    options = options_of(project.render, left_out)
    run_tests(project, what, uv_command(), "run", "pytest", *options, *tests)


def options_of(what: Render, left_out: list[str]) -> list[str]:
    return ["--database", what.database, *(f"--ignore=tests/{name}" for name in left_out)]


def test_what_is_left_out_runs_elsewhere() -> None:
    own = of_one_back_end()
    assert "{" not in "".join(own)
    assert {"engine/core/test_arq.py", "engine/core/test_flower.py"} < set(own)
    run_own = [r for r in RENDERS.values() if not {*own} & {*left_out_of(r)}]
    assert {len(r.backends) for r in run_own} == {1, len(NAMES)}
    assert {r.name for r in run_own} == {*WHOLE}
    for names in (WHOLE, IN_CI):
        assert {each for name in names for each in RENDERS[name].selection.variants()} == {
            *("background", "arq", "celery_redis", "celery_rabbitmq"),
            *("apscheduler_3", "apscheduler_4"),
        }
    for service, tests in IN_PARTS.items():
        assert {r.name for r in RENDERS.values() if runs(r, tests)} == {service}
    assert not [r.name for r in RENDERS.values() for name in SLOW if runs(r, (name,))]
    assert {RENDERS[name].database for name in TWO} == {"sqlite", "postgresql"}
    for tests, services in RUN_BY.items():
        assert {*services} <= {*WHOLE}
        now = tuple(name for name in tests if not is_named(name, PARTS))
        assert not now or {r.name for r in RENDERS.values() if runs(r, now)} == {*services}
    assert {needs for name in RUN_BY[RATES] for needs in RENDERS[name].brokers} == {"redis"}
    assert {needs for name in RUN_BY[LAUNCH] for needs in RENDERS[name].brokers} == {
        *("redis", "rabbitmq")
    }


def runs(what: Render, tests: tuple[str, ...]) -> bool:
    left_out = {*left_out_of(what)}
    named = [PurePosixPath("engine", name) for name in tests]
    return not any(str(each) in left_out for name in named for each in (name, *name.parents))


def test_what_is_left_out_is_there() -> None:
    """pytest doesn't complain about a missing file that it is told to leave out."""
    there = [path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*")]
    rendered = Counter(RENDERED.sub(r"\1", name) for name in there)
    for name in (*THE_SAME, *RATES, *LAUNCH, *PARTS):
        assert rendered[name] == 1, name


@pytest.mark.renders("celery-rabbitmq")
def test_a_missing_server_is_one_line_and_no_success(plain: Project, tmp_path: Path) -> None:
    """`poe test` prints it and ends with 1. The template's tests then skip that suite."""
    shutil.copytree(plain.folder, tmp_path / "service", ignore=shutil.ignore_patterns(".venv"))
    without = replace(plain, folder=tmp_path / "service")
    module = without.folder / "devtools" / "rabbitmq.py"
    module.write_text(module.read_text().replace('rabbitmq-server"', 'no-such-server"'))
    programs = type_checker("3").parent
    path = f"PATH={programs}:{os.environ['PATH']}"
    command = ["env", path, str(programs / "poe"), "--quiet", "test"]
    done = subprocess.run(command, cwd=without.folder, text=True, capture_output=True)
    line = "Exit: nothing was tested: no RabbitMQ here: install rabbitmq-server, or set "
    assert (done.returncode, done.stderr) == (1, f"{line}TEST_RABBITMQ_URL\n")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(pytest.skip.Exception):
        patch.delenv("CI", raising=False)
        run(without, "without-a-server", *command)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(pytest.fail.Exception):
        patch.setenv("CI", "true")
        run(without, "without-a-server", *command)


@PLAIN
def test_the_owners_suite(plain: Project) -> None:
    """The suite without the tests of the engine."""
    check_types(plain, "plain-types")
    suite_in_shared(plain, "plain-suite")


@pytest.mark.slow
@PLAIN
def test_the_owners_suite_on_postgresql(plain: Project) -> None:
    suite_in_shared(plain, "plain-suite-postgresql", "--database", "postgresql")


def test_the_benchmark_fits(tmp_path: Path) -> None:
    """Its types are checked where it runs: inside a service, here one with every back end."""
    render(RENDERS[ALL].answers, tmp_path)
    add_bench(tmp_path)
    check_types_of(tmp_path, "-p", "bench", "-p", "control")
    check_types_of(tmp_path, "--ignore-missing-imports", "-p", "peers")
