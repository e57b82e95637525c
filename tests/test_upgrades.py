"""Migrates a database of 0.1.0, with rows in every state and a user's revision, up and back."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.releases import Release, copied, real_servers, released
from tests.work import FILES

REVISION = "migrations/versions/0002_customers.py"
FILL = """
import asyncio
from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy import insert, text

from app.core.database import AsyncSessionLocal, dispose
from app.jobs.table import jobs


async def main():
    now = datetime.now(UTC)
    row = {"task": "orders.process_order", "queue": "orders", "args": ["x"], "max_attempts": 3}
    row |= {"created_at": now, "run_at": now}
    states = {
        "pending": {"wake_at": now},
        "running": {"wake_at": now, "attempts": 1, "started_at": now},
        "succeeded": {"args": None, "attempts": 1, "result": {"a": 1}, "finished_at": now},
        "dead": {"attempts": 3, "error": "ValueError: no", "finished_at": now},
        "cancelled": {"finished_at": now, "key": "k", "keep_key": True},
    }
    async with AsyncSessionLocal() as session:
        for status, more in states.items():
            await session.execute(insert(jobs).values(id=uuid4(), status=status, **row | more))
        await session.execute(
            text("INSERT INTO customers (id, name) VALUES (:id, 'Ada')"), {"id": uuid4().hex}
        )
        await session.commit()
    await dispose()


asyncio.run(main())
"""
# The columns of 0.1.0. Later schemas have more.
READ = """
import json
import sys

from sqlalchemy import create_engine, text

from app.config import get_settings
from app.core.database import sync_url

columns = (
    "id, task, queue, args, key, keep_key, status, attempts, max_attempts, crashes, result, error, "
    "created_at, run_at, started_at, finished_at"
)
with create_engine(sync_url(get_settings().database_url)).connect() as connection:
    jobs = connection.execute(text(f"SELECT {columns} FROM jobs ORDER BY id")).all()
    customers = connection.execute(text("SELECT id, name FROM customers")).all()
print(json.dumps([[*map(str, row)] for row in [*jobs, *customers]]))
"""


@pytest.mark.slow
@pytest.mark.renders("background")
def test_upgraded_and_back_nothing_is_lost_on_sqlite(project: Project, tmp_path: Path) -> None:
    upgrade_and_back(project, tmp_path)


@pytest.mark.slow
@pytest.mark.renders("background")
def test_upgraded_and_back_nothing_is_lost_on_postgresql(project: Project, tmp_path: Path) -> None:
    upgrade_and_back(project, tmp_path, "DATABASE_URL")


def upgrade_and_back(project: Project, tmp_path: Path, *servers: str) -> None:
    old = copied(released(project.name), tmp_path / "old")
    new = copied(project.folder, tmp_path / "new")
    for release in (old, new):
        (release.folder / REVISION).write_text(FILES[REVISION])
    with database(old, tmp_path, *servers) as env:
        python(old, env, "-m", "app.migrate")
        python(old, env, "-c", FILL)
        rows = json.loads(python(new, env, "-c", READ))
        assert len(rows) == 5 + 1
        for command in (
            ("-m", "app.migrate"),
            ("-m", "alembic", "downgrade", "jobs_0001"),
            ("-m", "alembic", "upgrade", "heads"),
        ):
            python(new, env, *command)
            assert json.loads(python(new, env, "-c", READ)) == rows, command
        python(new, env, "-m", "alembic", "downgrade", "jobs_0001")
        python(old, env, "-m", "app.migrate")


@contextmanager
def database(release: Release, folder: Path, *servers: str) -> Iterator[dict[str, str]]:
    file = {"DATABASE_URL": f"sqlite:///{folder}/test.db"}
    with real_servers(release, folder / "servers", *servers) as addresses:
        yield file | addresses


def python(release: Release, env: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        ["python", *arguments],
        cwd=release.folder,
        env=release.env(**env),
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1] if done.stdout else ""
