"""The template stays small, and is readable as the code that it renders."""

import re
from pathlib import Path

import pytest

from tests.checks import imports_of_tests, none
from tests.renders import ROOT

TEMPLATE = ROOT / "template"
ENGINE = TEMPLATE / "app" / "jobs"
FILES = sorted(p for p in TEMPLATE.rglob("*") if p.is_file() and p.parent.name != "__pycache__")
# The Jinja in the service's own pages is rendered by the service, not by Copier.
READ_BY_COPIER = [path for path in FILES if path.suffix != ".html"]


def lines(paths: list[Path]) -> list[str]:
    return [line for path in paths for line in path.read_text("utf-8").splitlines()]


def is_python(path: Path) -> bool:
    """Whether it is Python. The name may contain a condition, or end in `.jinja`."""
    return ".py" in path.name and ".python" not in path.name


@pytest.mark.parametrize(
    ("paths", "percent"),
    [(READ_BY_COPIER, 3), ([path for path in FILES if is_python(path)], 1)],
    ids=["all", "python"],
)
def test_control_lines_are_few(paths: list[Path], percent: int) -> None:
    all_lines = lines(paths)
    control = [line for line in all_lines if "{%" in line]
    assert len(control) < len(all_lines) * percent / 100, "\n".join(control)


def test_the_engine_room_is_small() -> None:
    engine = [path for path in FILES if path.is_relative_to(ENGINE) and is_python(path)]
    assert len(engine) <= 29
    assert len(lines(engine)) <= 5039
    assert [path.name for path in engine if len(lines([path])) > 250] == []


def test_the_engines_page_names_its_files_and_their_state() -> None:
    page = (ENGINE / "README.md").read_text("utf-8")
    files = {path.name: path.read_text("utf-8") for path in ENGINE.glob("[a-z]*.py")}
    none([name for name in files if f"`{name}`" not in page and name != "backends.py"])
    kept = page.split("## What it keeps outside the database\n")[1]
    state = re.findall(r"^\| `(\w+)\.(\w+)`", kept, re.MULTILINE)
    assert len(state) > 5
    none([f"{module}.{name}" for module, name in state if f"\n{name}" not in files[f"{module}.py"]])


def test_only_who_opened_a_session_commits_it() -> None:
    """Services and the engine may be called with a task's session, which the host commits."""
    doors = [ENGINE / f"{name}.py" for name in ("submit", "operations", "timetable")]
    services = [path for path in FILES if path.is_relative_to(TEMPLATE / "app" / "services")]
    assert len(services) > 1
    assert [path.name for path in doors + services if ".commit()" in path.read_text()] == []


def test_the_catalogue_is_small() -> None:
    own = [
        path
        for folder in ("extensions", "scripts", "tests")
        for path in ROOT.glob(f"{folder}/*.py")
    ]
    assert [path.name for path in own if len(lines([path])) > 250] == []


def test_no_test_is_a_helper_of_others() -> None:
    """What tests share is in modules without tests."""
    files = {path.name: path.read_text("utf-8") for path in ROOT.glob("tests/*.py")}
    assert len(files) > 20
    none(imports_of_tests(files))
