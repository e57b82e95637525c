"""Code that can't be imported ends each process with one line, which names the place."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.commands import COMMANDS, HOSTS
from tests.service import ROOT

HEAD = "from __future__ import annotations\nfrom app.jobs import task\n\n\n"
NO_COLON = HEAD + "@task()\nasync def greet(name: str)\n    return name\n"
TYPO = HEAD + "@task()\nasync def greet(name: Strin) -> str:\n    return name\n"
NO_JSON = HEAD + "class Thing: ...\n\n\n@task()\nasync def greet(thing: Thing) -> None: ...\n"
NO_CALL = HEAD + "@task\nasync def greet(name: str) -> str:\n    return name\n"
SCHEDULE = """
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base


class Schedule(Base):
    __tablename__ = "schedules"

    id: Mapped[int] = mapped_column(primary_key=True)
"""
MIGRATE = f"{sys.executable} -m app.migrate"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("app", "migrations"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def start(project: Path, command: str, **env: str) -> str:
    """Start a process that must fail; returns its output."""
    ended = subprocess.run(
        shlex.split(command), cwd=project, env=os.environ | env, capture_output=True, text=True
    )
    assert ended.returncode == 1
    return ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (NO_COLON, "line 6: expected ':': mend the file\n"),
        (
            TYPO,
            "line 5: TypeError: task broken.greet: name 'Strin' is not defined: mend the file\n",
        ),
        (
            NO_JSON,
            "line 8: TypeError: task broken.greet: thing can't be of type Thing: arguments are ",
        ),
        (NO_CALL, "line 5: TypeError: write @task(): it has parentheses"),
    ],
    ids=["syntax", "annotation", "type", "parentheses"],
)
def test_the_line_says_where_and_what(project: Path, code: str, line: str) -> None:
    (project / "app" / "tasks" / "broken.py").write_text(code)
    said = start(project, MIGRATE)
    assert said.startswith(f"app/tasks/broken.py, {line}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", sorted({"api", *HOSTS.values()}))
def test_each_process_says_it(project: Path, name: str) -> None:
    """Of a task in a subfolder, too, which needn't be a package."""
    folder = project / "app" / "tasks" / "billing"
    folder.mkdir()
    (folder / "broken.py").write_text(TYPO)
    said = start(project, MIGRATE)
    assert said.startswith("app/tasks/billing/broken.py, line 5: TypeError: task billing.broken.")
    assert start(project, COMMANDS[name]) == said


@pytest.mark.parametrize(
    "place",
    ["tasks/schedules.py", "models/order.py", "models/webhook.py", "models/billing/invoice.py"],
)
def test_a_module_that_others_import_is_named(project: Path, place: str) -> None:
    (project / "app" / place).parent.mkdir(exist_ok=True)
    with (project / "app" / place).open("a") as file:
        file.write("\nunknown_name\n")
    number = len((project / "app" / place).read_text().splitlines())
    line = f"app/{place}, line {number}: NameError: name 'unknown_name' is not defined"
    assert start(project, MIGRATE) == f"{line}: mend the file\n"


@pytest.mark.parametrize("arguments", ["", "--compare"])
def test_a_model_whose_table_is_one_of_the_engine_is_named(project: Path, arguments: str) -> None:
    (project / "app" / "models" / "schedule.py").write_text(SCHEDULE)
    said = start(project, f"{MIGRATE} {arguments}")
    assert said == "app/models: app/jobs has a table schedules, too: choose another name\n"


def test_the_api_says_it_of_its_routes(project: Path) -> None:
    (project / "app" / "api" / "webhooks.py").write_text("from app.services.orders import Nothing")
    said = start(project, COMMANDS["api"])
    assert said.startswith("app/api/webhooks.py, line 1: ImportError: cannot import name 'Nothing'")
    assert said.count("\n") == 1


def test_a_database_that_is_not_there_is_named(project: Path) -> None:
    there = "postgresql://postgres@127.0.0.1:1/app"
    for address in (there, f"sqlite:///{project}/no/folder/app.db"):
        said = start(project, MIGRATE, DATABASE_URL=address)
        assert said.startswith("DATABASE_URL: ")
        assert said.count("\n") == 1
