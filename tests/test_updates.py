"""`copier update` from each release to the working tree, as users run it."""

import shutil
import subprocess
import sys
from importlib.metadata import version as version_of
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.marks import ALL
from tests.renders import RENDERS, uv_command, uv_environment
from tests.services import Service, differences, in_parallel
from tests.work import FILES, GONE, edits, work
from updates import history
from updates.history import ROOT

VERSIONS = [f"v{version}" for version in history.versions()]
SINGLE = ("background", "arq", "celery", "apscheduler", ALL)
QUICK_WORK = ("v0.2.0", "background")
QUICK = (("v0.1.0", "arq"), ("v0.2.0", "background-arq-celery-apscheduler-rabbitmq"))
EVERY = [(version, name) for version in VERSIONS for name in RENDERS]
# The files in which a user's line is beside a changed line of the template. They differ by routers,
# which are found by themselves now, by an import, by the README's words about SQLite, by a comment
# in `.env.example`, and for 0.1.0 also by requirements and by settings in compose.yaml.
CONFLICTS = {
    "v0.1.0": ["app/dependencies.py", "app/main.py", "compose.yaml", "pyproject.toml"],
    "v0.2.0": [".env.example", "README.md", "app/dependencies.py", "app/main.py"],
}
ENDING = """
Both you and the template changed these. Mend what is between <<<<<<< and >>>>>>>, then git add:
{conflicts}

These are gone, though you had edited them. To bring yours back:
  git checkout HEAD -- tests/jobs/test_contract.py

What remains:
  uv lock
  uv run poe migrate
  uv run poe test
"""


def in_ci(version: str, name: str) -> bool:
    """Whether it is the last release, or has every back end. The others are updated by night."""
    return version == VERSIONS[-1] or name == ALL


def answers_of(name: str) -> dict[str, Any]:
    """The answers to questions that releases have asked. `engine_tests` has its default."""
    return {k: v for k, v in RENDERS[name].answers.items() if k != "engine_tests"}


def untouched(template: Path, folder: Path, version: str, name: str) -> list[str]:
    """The differences between an updated service and a fresh render."""
    service = Service(template, folder / "old").render(answers_of(name), version)
    service.committed().update()
    fresh = Service(template, folder / "new").render(answers_of(name))
    found = differences(service.files(), fresh.files())
    return [f"{name} of {version}: {problem}" for problem in found]


@pytest.mark.parametrize(("version", "name"), QUICK)
def test_untouched_it_becomes_what_is_rendered_afresh(
    template: Path, tmp_path: Path, version: str, name: str
) -> None:
    assert untouched(template, tmp_path, version, name) == []


@pytest.mark.slow
def test_untouched_each_becomes_what_is_rendered_afresh(template: Path, tmp_path: Path) -> None:
    assert untouched_all(template, tmp_path, [case for case in EVERY if in_ci(*case)]) == []


@pytest.mark.night
def test_untouched_older_ones_become_what_is_rendered_afresh(
    template: Path, tmp_path: Path
) -> None:
    assert untouched_all(template, tmp_path, [case for case in EVERY if not in_ci(*case)]) == []


def untouched_all(template: Path, folder: Path, wanted: list[tuple[str, str]]) -> list[str]:
    cases = [case for case in wanted if case not in QUICK]
    return in_parallel(untouched, [(template, folder / " ".join(case), *case) for case in cases])


def test_a_users_work_stays_and_its_suite_passes(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    worked_on(template, tmp_path, capfd, *QUICK_WORK)


@pytest.mark.parametrize(
    ("version", "name"),
    [
        pytest.param(*case, marks=pytest.mark.slow if in_ci(*case) else pytest.mark.night)
        for case in product(VERSIONS, SINGLE)
        if case != QUICK_WORK
    ],
)
def test_a_users_work_stays_in_each(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], version: str, name: str
) -> None:
    worked_on(template, tmp_path, capfd, version, name)


def worked_on(
    template: Path, folder: Path, capfd: pytest.CaptureFixture[str], version: str, name: str
) -> None:
    """Update a service with a user's work, and resolve the conflicts as the user would."""
    answers = answers_of(name) | {"description": "Greets customers"}
    service = Service(template, folder / "old").render(answers, version)
    work(service.folder, version)
    edited = service.committed().read(GONE.path)
    capfd.readouterr()
    service.update()
    conflicts = CONFLICTS[version]
    assert service.unmerged() == conflicts
    named = "\n".join(f"  {path}" for path in conflicts)
    assert capfd.readouterr().err.endswith(ENDING.format(conflicts=named))
    assert missing(service, version) == []
    service.git("checkout", "HEAD", "--", GONE.path)
    assert service.read(GONE.path) == edited
    service.git("rm", "--quiet", "--force", GONE.path)
    mend(service, conflicts)
    fresh = Service(template, folder / "new").render(answers)
    assert differences(without_work(service, version), fresh.files()) == []
    service.run("uv lock --quiet")
    for command in ("ruff check", "ruff format --check", "mypy", "pytest"):
        service.run(f"uv run {command}")


def missing(service: Service, version: str) -> list[str]:
    """The user's lines that are missing, even between the marks of a conflict."""
    files = service.files()
    return [path for path in FILES if files.get(path) != FILES[path]] + [
        f"{edit.path}: {line}"
        for edit in edits(version)
        for line in edit.lines.splitlines()
        if line not in files[edit.path].splitlines()
    ]


def mend(service: Service, conflicts: list[str]) -> None:
    """Resolve each conflict: take the template's side, and put the user's lines in again."""
    service.git("checkout", "--theirs", *conflicts)
    for edit in edits():
        if edit.path in conflicts:
            edit.apply(service.folder)
    service.git("add", "--all")


def without_work(service: Service, version: str) -> dict[str, str]:
    """The service's files without the user's files and lines."""
    files = {path: text for path, text in service.files().items() if path not in FILES}
    conflicts = CONFLICTS[version]
    stayed = [edit for edit in edits(version) if edit.path not in conflicts]
    for edit in [*stayed, *(edit for edit in edits() if edit.path in conflicts)]:
        files[edit.path] = edit.undo(files[edit.path])
    return files


def test_the_engines_tests_come_when_they_are_asked_for_and_stay(
    template: Path, tmp_path: Path
) -> None:
    with_them = {"backends": ["arq"], "engine_tests": True}
    fresh = Service(template, tmp_path / "new").render(with_them).files()
    service = Service(template, tmp_path / "old").render({"backends": ["arq"]})
    service.committed().update(engine_tests=True)
    assert differences(service.files(), fresh) == []
    service.committed().update()
    assert differences(service.files(), fresh) == []


def test_nobody_is_asked_about_the_engines_tests(template: Path, tmp_path: Path) -> None:
    """Whoever answers all other questions is asked nothing."""
    answers = {"project_name": "One", "project_slug": "one", "description": "One"}
    answers |= {"backends": "[arq]", "python_version": "3.12"}
    given = [part for name, value in answers.items() for part in ("--data", f"{name}={value}")]
    command = [sys.executable, "-m", "copier", "copy", "--trust", "--quiet", *given]
    service = Service(template, tmp_path / "one")
    subprocess.run([*command, template, service.folder], stdin=subprocess.DEVNULL, check=True)
    assert "engine_tests: false\n" in service.read(".copier-answers.yml")


@pytest.mark.slow
def test_the_oldest_copier_that_is_allowed_updates_the_same(template: Path, tmp_path: Path) -> None:
    floor = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))["_min_copier_version"]
    extensions = f"copier-template-extensions=={version_of('copier-template-extensions')}"
    oldest = [uv_command(), "tool", "run", "--from", f"copier=={floor}", "--with", extensions]
    found = []
    for command in ([*oldest, "copier"], [sys.executable, "-m", "copier"]):
        service = Service(template, tmp_path / command[-1] / "it")
        service.render({"backends": ["arq"]}, "v0.2.0")
        service.append("app/core/arq.py", "# mine\n")
        switch = ["update", "--trust", "--defaults", "--data", "backends=[celery]"]
        done = subprocess.run(
            [*command, *switch],
            cwd=service.committed().folder,
            env=uv_environment(),
            text=True,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        said = [line for line in done.stderr.splitlines() if line.startswith("  ")]
        found.append((service.files(), service.unmerged(), said))
        shutil.rmtree(service.folder)
    assert found[0] == found[1]
    assert "  git checkout HEAD -- app/core/arq.py" in found[0][2]
