"""Each command in the pages for agents works."""

import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import pytest

from tests.conftest import Project
from tests.renders import ROOT, uv_command, uv_environment

BLOCK = re.compile(r"```sh\n(.+?)```", re.DOTALL)


def commands(page: str) -> Iterator[str]:
    """The commands in the page's blocks, without comments."""
    for block in BLOCK.findall(page):
        for line in block.splitlines():
            yield from line.partition(" #")[0].strip().split(" && ")


MODEL = """
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base


class Added(Base):
    __tablename__ = "added"

    id: Mapped[int] = mapped_column(primary_key=True)
"""
OURS = (ROOT / "AGENTS.md").read_text("utf-8")


@pytest.mark.parametrize("command", [*commands(OURS)])
def test_a_command_works(command: str) -> None:
    """A command that runs tests needs only to find them: all tests run anyway."""
    if command.startswith("uv run pytest"):
        command += " -n0 -q --collect-only"
    run(command, ROOT, uv_environment())


def run(command: str, folder: Path, environment: Mapping[str, str]) -> None:
    typed = ["sh", "-c", command.replace("uv", uv_command(), 1)]
    done = subprocess.run(typed, cwd=folder, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_is_short() -> None:
    assert len(OURS.splitlines()) < 60


def test_a_services_page_is_short_and_names_what_is_there(project: Project) -> None:
    page = project.files["AGENTS.md"]
    assert len(page.splitlines()) < 60
    names = set(re.findall(r"`((?:app|migrations|tests)/[\w/.]*)`", page))
    assert len(names) > 5
    there = [*project.files, *(f"{path}/" for name in project.files for path in folders(name))]
    assert [name for name in names if name not in there and f"{name}/" not in there] == []
    tasks = tomllib.loads(project.files["pyproject.toml"])["tool"]["poe"]["tasks"]
    known = {"poe": tasks, "pytest": project.files, "jobs": project.files["app/cli/commands.py"]}
    for command in commands(page):
        kind, name = command.removeprefix("uv run ").split()[:2]
        assert name in known[kind]


def folders(name: str) -> list[str]:
    return [path.as_posix() for path in PurePosixPath(name).parents]


@pytest.mark.renders("arq-apscheduler")
def test_a_services_commands_work(project: Project, tmp_path: Path) -> None:
    """Runs the commands that end, and that the service's suite and lint don't run anyway."""
    migrations = project.folder / "migrations" / "versions"
    kept = set(migrations.glob("*.py"))
    model = project.folder / "app" / "models" / "added.py"
    model.write_text(MODEL)  # a revision without a change is refused
    settings = uv_environment() | {"DATABASE_URL": f"sqlite:///{tmp_path}/app.db"}
    try:
        for command in commands(project.files["AGENTS.md"]):
            command = re.sub(r"poe (?=dev|lint|test)", "poe --dry-run ", command)
            run(command.replace("pytest", "pytest --collect-only"), project.folder, settings)
    finally:
        model.unlink()
    (made,) = set(migrations.glob("*.py")) - kept
    made.unlink()
