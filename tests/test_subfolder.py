"""A service in a folder of a larger repository is checked, if a user does what the page says."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytest_copie.plugin import Copie

from tests.checks import OFFLINE, problems_of_workflow, said
from tests.conftest import rendered_by
from tests.renders import ROOT, uv_command, uv_environment

PLACE = Path("services", "orders")  # as the page has it
TITLE = "## In a folder of a larger repository\n"
WRONG = 'import os\n\nNUMBER: int = "one"'


@pytest.fixture
def repository(copie: Copie, tmp_path: Path) -> Path:
    """One that has a service, and at its root what the page's commands make there."""
    service = rendered_by(copie, {"backends": ["background"]})
    shutil.copytree(service, tmp_path / PLACE)
    page = (ROOT / "docs" / "updating.md").read_text("utf-8")
    (commands,) = re.findall(r"```sh\n(.+?)```", page.split(TITLE)[1].split("\n## ")[0], re.DOTALL)
    subprocess.run(["sh", "-euc", commands], cwd=tmp_path, check=True)
    return tmp_path


def parsed(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return found


def test_github_finds_the_service(repository: Path) -> None:
    own, root = repository / PLACE / ".github", repository / ".github"
    for path in (own / "workflows").iterdir():
        copy = root / "workflows" / f"orders-{path.name}"
        assert problems_of_workflow(copy) == ""
        was, now = parsed(path), parsed(copy)
        assert now.pop("defaults") == {"run": {"working-directory": PLACE.as_posix()}}
        assert now.pop("name") != was.pop("name"), "runs of one name cancel each other"
        assert now == was
    settings = root / "dependabot.yml"
    assert said(["check-jsonschema", "--builtin-schema", "vendor.dependabot", settings]) == ""
    assert said(["zizmor", *OFFLINE, settings]) == ""
    places = {each["package-ecosystem"]: each["directory"] for each in parsed(settings)["updates"]}
    assert places == {"uv": f"/{PLACE.as_posix()}", "github-actions": "/"}


@pytest.mark.slow
def test_the_hooks_check_the_service_alone(repository: Path) -> None:
    service = repository / PLACE
    subprocess.run([uv_command(), "lock", "-q"], cwd=service, env=uv_environment(), check=True)
    (repository / "another.py").write_text(WRONG)
    subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
    assert failing_hooks(repository) == set()
    (service / "app" / "wrong.py").write_text(WRONG)
    project = service / "pyproject.toml"
    project.write_text(project.read_text("utf-8").replace('"0.1.0"', '"0.2.0"', 1), "utf-8")
    assert failing_hooks(repository) == {"lock", "ruff-check", "ruff-format", "mypy"}
    assert (repository / "another.py").read_text() == WRONG


def failing_hooks(repository: Path) -> set[str]:
    subprocess.run(["git", "add", "--all"], cwd=repository, check=True)
    done = subprocess.run(
        [Path(sys.executable).with_name("pre-commit"), "run", "--all-files"],
        cwd=repository,
        env=uv_environment() | {"PRE_COMMIT_HOME": str(repository / ".git" / "hooks.cache")},
        text=True,
        capture_output=True,
    )
    failed = set(re.findall(r"^- hook id: (.+)$", done.stdout, re.MULTILINE))
    assert bool(failed) == bool(done.returncode), done.stdout + done.stderr
    return failed
