"""`copier update` from each release to the working tree, as users meet it."""

import shutil
import subprocess
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.renders import RENDERS, uv_command, uv_environment
from tests.services import Service, differences, in_parallel
from tests.work import EDITS, FILES, edits, work
from updates import history
from updates.history import ROOT

VERSIONS = [f"v{version}" for version in history.versions()]
SINGLE = ("background", "arq", "celery", "apscheduler", "background-arq-celery-apscheduler")
QUICK = (("v0.1.0", "arq"), ("v0.2.0", "background-arq-celery-apscheduler-rabbitmq"))
EVERY = [(version, name) for version in VERSIONS for name in RENDERS]
# Since 0.2.0 routers are found by themselves, and the import beside the user's has changed.
# The README's part around the user's words has moved.
CONFLICTS = ["README.md", "app/dependencies.py", "app/main.py"]
# The files of 0.1.0 don't have the lines beside which the work's edits stand.
WORKED = [("v0.2.0", name) for name in SINGLE]


def answers_of(name: str) -> dict[str, Any]:
    """Without what no release has asked: a user's update has its default."""
    return {k: v for k, v in RENDERS[name].answers.items() if k != "engine_tests"}


def untouched(template: Path, folder: Path, version: str, name: str) -> list[str]:
    """What an update makes differ from a fresh render."""
    service = Service(template, folder / "old").render(answers_of(name), version)
    service.committed().update()
    fresh = Service(template, folder / "new").render(answers_of(name))
    found = differences(service.files(), fresh.files())
    return [f"{name} of {version}: {problem}" for problem in found]


def worked_on(template: Path, folder: Path, version: str, name: str) -> list[str]:
    """What an update makes differ from a fresh render with the same work."""
    answers = answers_of(name) | {"description": "Greets customers"}
    service = Service(template, folder / "old").render(answers, version)
    work(service.folder, version)
    service.committed().update()
    unmerged = service.unmerged()
    if unmerged != CONFLICTS:
        return [f"{name} of {version}: conflicts in {unmerged}"]
    service.git("checkout", "--theirs", *CONFLICTS)
    without = {path: text for path, text in service.files().items() if path not in FILES}
    for edit in edits(version):
        if edit.path not in CONFLICTS:
            without[edit.path] = edit.undo(without[edit.path])
    fresh = Service(template, folder / "new").render(answers)
    found = differences(without, fresh.files())
    found += [f"{path} is lost" for path in FILES if service.read(path) != FILES[path]]
    return [f"{name} of {version}: {problem}" for problem in found]


@pytest.mark.parametrize(("version", "name"), QUICK)
def test_untouched_it_becomes_what_is_rendered_afresh(
    template: Path, tmp_path: Path, version: str, name: str
) -> None:
    assert untouched(template, tmp_path, version, name) == []


@pytest.mark.slow
def test_untouched_each_becomes_what_is_rendered_afresh(template: Path, tmp_path: Path) -> None:
    cases = [(template, tmp_path / " ".join(case), *case) for case in EVERY if case not in QUICK]
    assert in_parallel(untouched, cases) == []


def test_a_users_work_stays_and_its_suite_passes(template: Path, tmp_path: Path) -> None:
    assert worked_on(template, tmp_path, "v0.2.0", "background") == []
    mended_it_passes(template, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("version", "name"), [case for case in WORKED if case[1] != "background"])
def test_a_users_work_stays_in_each(
    template: Path, tmp_path: Path, version: str, name: str
) -> None:
    assert worked_on(template, tmp_path, version, name) == []
    mended_it_passes(template, tmp_path)


def mended_it_passes(template: Path, folder: Path) -> None:
    """With the user's lines beside the template's where both had changed the same ones."""
    service = Service(template, folder / "old")
    for edit in EDITS:
        if edit.path in CONFLICTS:
            edit.apply(service.folder)
    service.git("add", "--all")
    service.run("uv lock --quiet")
    for command in ("ruff check", "ruff format --check", "mypy", "pytest"):
        service.run(f"uv run {command}")


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
