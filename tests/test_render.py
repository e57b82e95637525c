"""What holds for the text of each rendered service."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.renders import ROOT

FILES = tomllib.loads((Path(__file__).parent / "files.toml").read_text("utf-8"))
JINJA = re.compile(r"\{%|%\}|\{#|(?<!\$)\{\{|\.jinja\b")

# Each is found where its capability is chosen, and nowhere else.
TRACES = {
    "has_background": r"Background[ _]?Tasks?\b|core[./]background\b|['\"]background['\"]",
    "has_arq": r"(?<![a-z])arq(?![a-z])|ArqRedis",
    "has_celery": r"celery|flower|kombu|\bbeat\b",
    "has_apscheduler": r"apscheduler",
    "needs_redis": r"redis|valkey",
    "needs_rabbitmq": r"rabbitmq|amqp",
}


def test_it_has_exactly_its_files(project: Project) -> None:
    can = {"always": True} | project.render.selection.capabilities()
    expected = {name for condition, names in FILES.items() if can[condition] for name in names}
    assert set(project.files) == expected


def test_no_template_language_is_left(project: Project) -> None:
    found = [
        f"{name}: {line}"
        for name, text in project.files.items()
        for line in [name, *text.splitlines()]
        if JINJA.search(line)
    ]
    assert not found


@pytest.mark.parametrize("capability", TRACES)
def test_only_what_was_chosen_leaves_a_trace(project: Project, capability: str) -> None:
    pattern = re.compile(TRACES[capability], re.IGNORECASE)
    found = [
        f"{name}: {line}"
        for name, text in project.files.items()
        for line in [name, *text.splitlines()]
        if pattern.search(line) and not line.startswith("_src_path:")
    ]
    if project.render.selection.capabilities()[capability]:
        assert found
    else:
        assert found == []


def test_it_is_linted_and_formatted(project: Project) -> None:
    names = sorted(name for name in project.files if name.endswith(".py"))
    for command in (["check"], ["format", "--check", "--diff"]):
        done = _ruff(project, *command, *names)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_long(project: Project) -> None:
    lengths = {name: len(text.splitlines()) for name, text in project.files.items()}
    assert {name: length for name, length in lengths.items() if length > 250} == {}


def test_type_checking_is_strict(project: Project) -> None:
    settings = tomllib.loads(project.files["pyproject.toml"])["tool"]["mypy"]
    assert settings["strict"] is True
    checked = tuple(settings["files"])
    assert [n for n in project.files if n.endswith(".py") and not n.startswith(checked)] == []


def _ruff(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Whatever configures the template's own ruff must not be found from a render inside its folder.
    assert (project.folder / "pyproject.toml").is_file() and project.folder.is_relative_to(ROOT)
    command = [sys.executable, "-m", "ruff", *arguments]
    return subprocess.run(command, cwd=project.folder, text=True, capture_output=True)
