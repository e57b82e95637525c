from __future__ import annotations

import ast
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory

from app.core.loading import alembic_config
from tests.engine.devtools.started import POE
from tests.engine.operations.command import findings
from tests.service import ROOT, START_LIMIT, Service, copy_database, eventually

CONFIG = alembic_config()
MIGRATE = (sys.executable, "-m", "app.migrate")
ALEMBIC = (sys.executable, "-m", "alembic")
WEBHOOK = """
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base


class Webhook(Base):
    __tablename__ = "webhooks"

    id: Mapped[int] = mapped_column(primary_key=True)
"""
REVISION = """
revision = "{name}"
down_revision = "{after}"
branch_labels = None
depends_on = {depends_on!r}


def upgrade() -> None: ...
"""
ORDER = {"item": "book", "quantity": 1}
NAMES = {"jobs", "jobs_due", "known_tasks", "processes", "schedules", "orders", "user_sessions"}


def test_the_models_have_no_change_without_a_migration() -> None:
    command.check(CONFIG)


def test_the_last_step_of_the_template_can_be_taken_back() -> None:
    command.downgrade(CONFIG, "jobs@-1")
    command.upgrade(CONFIG, "heads")
    command.check(CONFIG)


def test_the_template_and_the_app_have_a_branch_each() -> None:
    scripts = ScriptDirectory.from_config(CONFIG)
    heads = {label for head in scripts.get_heads() for label in branch_labels(scripts, head)}
    assert heads >= {"app", "jobs"}


def branch_labels(scripts: ScriptDirectory, head: str) -> set[str]:
    return set().union(*(step.branch_labels for step in scripts.iterate_revisions(head, "base")))


def test_migrating_twice_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/new.db")
    schemas = []
    for _ in range(2):
        subprocess.run([sys.executable, "-m", "app.migrate"], check=True, cwd=ROOT)
        with sqlite3.connect(tmp_path / "new.db") as database:
            schemas.append(database.execute("SELECT * FROM sqlite_master ORDER BY name").fetchall())
        database.close()
    assert schemas[0] == schemas[1]
    assert {row[1] for row in schemas[0]} >= NAMES


def test_a_new_model_is_found_and_a_revision_is_never_empty(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database has no table yet."""
    monkeypatch.setenv("DATABASE_URL", "sqlite:///new.db")
    versions = project / "migrations" / "versions"
    before = {*versions.glob("*.py")}
    (project / "app" / "models" / "webhook.py").write_text(WEBHOOK)
    assert "run `poe migrate`" in findings(1, folder=project)["fault migrations"]
    migrated = run(project, sys.executable, "-m", "app.migrate", "--compare")
    assert "schema.differs" in migrated.stderr

    assert run(project, *POE, "revision", "adds 'webhooks'").returncode == 0
    (written,) = {*versions.glob("*.py")} - before
    text = written.read_text()
    assert text.startswith('"""adds \'webhooks\'')
    assert "create_table('webhooks'" in text.replace('"', "'")

    nothing = run(project, *POE, "revision", "again")
    assert nothing.returncode == 1
    assert "nothing is written: the database has all that the models" in nothing.stderr
    assert {*versions.glob("*.py")} - before == {written}
    migrated = run(project, sys.executable, "-m", "app.migrate", "--compare")
    assert "schema.differs" not in migrated.stderr


@pytest.mark.parametrize("message", ['rename "title" to "name"', "rename c:\\new\\"])
def test_a_revision_has_any_message(
    project: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:///new.db")
    (project / "app" / "models" / "webhook.py").write_text(WEBHOOK)
    assert run(project, *POE, "revision", message).returncode == 0
    assert run(project, sys.executable, "-m", "app.migrate").returncode == 0
    (written,) = (project / "migrations" / "versions").glob("*_rename_*.py")
    assert ast.get_docstring(ast.parse(written.read_text())) == message


async def test_an_api_is_ready_when_no_migration_is_missing(tmp_path: Path) -> None:
    async with Service.alone(tmp_path) as service:
        env = {**os.environ, **service.env}
        run(ROOT, *ALEMBIC, "downgrade", "jobs@-1", env=env).check_returncode()
        service.start("api")
        await eventually(lambda: is_behind(service), START_LIMIT)
        run(ROOT, *MIGRATE, env=env).check_returncode()
        await eventually(service.is_ready, START_LIMIT)
        assert (await service.client.post("/orders", json=ORDER)).status_code == 201


async def test_a_release_runs_on_the_schema_of_a_newer_one(project: Path, tmp_path: Path) -> None:
    """Somebody has gone back to it: it leaves the schema as it is."""
    async with Service.alone(tmp_path / "service") as service:
        env = {**os.environ, **service.env}
        newer = add_revision(project, "newer", after="app_0001")
        run(project, *MIGRATE, env=env).check_returncode()
        newer.unlink()
        migrated = run(project, *MIGRATE, "--compare", env=env)
        assert migrated.returncode == 0, migrated.stderr
        assert "Traceback" not in migrated.stderr
        [line] = [line for line in migrated.stderr.splitlines() if "schema." in line]
        assert "schema.newer" in line and "['newer']" in line
        service.start("api")
        await eventually(service.is_ready, START_LIMIT)
        assert (await service.client.post("/orders", json=ORDER)).status_code == 201


def test_what_is_missing_is_not_hidden_by_what_is_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/new.db")
    run(ROOT, *ALEMBIC, "upgrade", "jobs_0003").check_returncode()
    with sqlite3.connect(tmp_path / "new.db") as database:
        database.execute("INSERT INTO alembic_version VALUES ('newer')")
    database.close()
    migrated = run(ROOT, *MIGRATE)
    assert migrated.returncode == 1
    [line] = migrated.stderr.splitlines()
    assert "lacks jobs_0004" in line and "has newer" in line
    assert "lacks jobs_0004" in findings(1)["fault migrations"]


@pytest.mark.parametrize(
    ("mistake", "error"), [("def upgrade()", "SyntaxError"), ('down_revision = "?"', "KeyError")]
)
def test_a_revision_that_cannot_be_read_hides_no_other_finding(
    project: Path, mistake: str, error: str
) -> None:
    wrong = add_revision(project, "wrong", after="app_0001")
    wrong.write_text(f"{wrong.read_text()}{mistake}\n")
    (project / ".env").write_text("API_KEYY=x\n")
    said = findings(1, folder=project, env={"ENV_FILE": ".env"})
    assert f"can't be read: {error}" in said["fault migrations"]
    assert "nothing reads API_KEYY" in said["note settings"]


def test_a_revision_may_depend_on_one_of_the_template(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the two the database then names the other one alone."""
    monkeypatch.setenv("DATABASE_URL", "sqlite:///new.db")
    add_revision(project, "needs_jobs", after="app_0001", depends_on="jobs_0004")
    run(project, *MIGRATE).check_returncode()
    assert "fault migrations" not in findings(1, folder=project)


@pytest.mark.parametrize("end", ["raise RuntimeError", "os.kill(os.getpid(), 9)"])
def test_a_revision_that_ended_half_way_can_be_repeated(
    project: Path, tmp_path: Path, end: str
) -> None:
    env = {**os.environ, "DATABASE_URL": copy_database(os.environ["EMPTY_DATABASE"], tmp_path)}
    revision = add_revision(project, "halfway", after="app_0001")
    whole = f"import os\n\nfrom alembic import op\n{revision.read_text()}"
    whole = whole.replace("...", '\n    op.execute("CREATE TABLE halfway (id INT)")\n')
    revision.write_text(f"{whole}    {end}\n")
    assert run(project, *MIGRATE, env=env).returncode in (1, -9)
    revision.write_text(whole)
    migrated = run(project, *MIGRATE, env=env)
    assert migrated.returncode == 0, migrated.stderr


@pytest.mark.postgresql
def test_a_revision_that_fails_shows_no_rows(project: Path, tmp_path: Path) -> None:
    fails = "CREATE TABLE keys AS SELECT 'TOP' || 'SECRET' AS key FROM generate_series(1, 2)"
    fails = f'op.execute("{fails}"); op.create_index("single", "keys", ["key"], unique=True)'
    migrated = migrate_by(project, tmp_path, fails)
    assert "could not create unique index" in migrated.stderr
    assert "TOPSECRET" not in migrated.stderr


@pytest.mark.postgresql
def test_a_user_that_may_not_create_a_table_is_one_line(project: Path, tmp_path: Path) -> None:
    steps = "CREATE ROLE weak; SET ROLE weak; CREATE TABLE forbidden (id INT)"
    migrated = migrate_by(project, tmp_path, f'op.execute("{steps}")')
    told = "permission denied for schema public: correct its user, its password or its rights\n"
    assert (migrated.returncode, migrated.stderr) == (1, told)


def migrate_by(project: Path, folder: Path, steps: str) -> subprocess.CompletedProcess[str]:
    """Migrate a database of its own with one more revision, which has these steps."""
    env = {**os.environ, "DATABASE_URL": copy_database(os.environ["EMPTY_DATABASE"], folder)}
    revision = add_revision(project, "one_more", after="app_0001")
    whole = f"from alembic import op\n{revision.read_text()}"
    revision.write_text(whole.replace("...", steps))
    return run(project, *MIGRATE, env=env)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy in a folder whose name Alembic would take for a variable."""
    folder = tmp_path / "a%2Fb"
    for name in ("app", "migrations"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def add_revision(project: Path, name: str, after: str, depends_on: str | None = None) -> Path:
    file = project / "migrations" / "versions" / f"{name}.py"
    file.write_text(REVISION.format(name=name, after=after, depends_on=depends_on))
    return file


async def is_behind(service: Service) -> bool:
    answer = await service.client.get("/health/ready")
    return (answer.status_code, answer.json()["data"]["migrations"]) == (503, "behind")


def run(
    project: Path, *command: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=project, capture_output=True, text=True, env=env)
