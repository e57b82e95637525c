"""The command and the doctor say the same of a database's error, and for each error what helps."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from app.core.database import IS_SQLITE, sync_url
from tests.engine.operations.command import findings
from tests.engine.operations.command import jobs as command
from tests.service import copy_database, on_server

GRANT = "correct its user, its password or its rights"
# They refuse what the command writes, and what the doctor writes.
FULL = """
    CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE 'no space left' USING ERRCODE = 'disk_full'; END$$;
    CREATE TRIGGER full_disk BEFORE INSERT ON queues EXECUTE FUNCTION full_disk();
    CREATE TRIGGER full_disk BEFORE INSERT ON known_tasks EXECUTE FUNCTION full_disk();
"""
REFUSING = (
    [
        "CREATE TRIGGER refuse BEFORE INSERT ON queues"
        " BEGIN SELECT RAISE(ABORT, 'not on a Friday'); END"
    ]
    if IS_SQLITE
    else [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE 'not on a Friday'; END$$",
        "CREATE TRIGGER refuse BEFORE INSERT ON queues EXECUTE FUNCTION refuse()",
    ]
)
BUSY = "something may hold what it needs: try again, or end that"


@pytest.fixture
def database(tmp_path: Path) -> str:
    return copy_database(os.environ["EMPTY_DATABASE"], tmp_path)


@pytest.fixture
def reader(database: str) -> Iterator[dict[str, str]]:
    """The variables of a role that may only read."""
    role = f"reader_{uuid4().hex}"
    on_server(f"CREATE ROLE {role} LOGIN PASSWORD 'reads' IN ROLE pg_read_all_data")
    url = make_url(database).set(username=role, password="reads")
    yield {"DATABASE_URL": url.render_as_string(hide_password=False)}
    on_server(f"DROP ROLE {role}")


def both(env: dict[str, str]) -> list[str]:
    """What a command that writes says, and the doctor."""
    return [command("pause", "orders", code=1, env=env), findings(1, env=env)["fault database"]]


@pytest.mark.postgresql
def test_a_role_that_may_not_write(reader: dict[str, str]) -> None:
    for said in both(reader):
        assert "permission denied for table " in said
        assert said.endswith(f": {GRANT}\n")


@pytest.mark.postgresql
def test_a_role_that_the_server_does_not_know(database: str) -> None:
    url = make_url(database).set(username="nobody_has_this_name")
    for said in both({"DATABASE_URL": url.render_as_string(hide_password=False)}):
        assert said.startswith("DATABASE_URL: ")
        assert said.endswith(f": {GRANT}\n")


@pytest.mark.postgresql
def test_connections_that_are_used_up(reader: dict[str, str]) -> None:
    role = make_url(reader["DATABASE_URL"]).username
    on_server(f"ALTER ROLE {role} CONNECTION LIMIT 1")
    with psycopg.connect(reader["DATABASE_URL"]):
        for said in both(reader):
            assert "too many connections" in said
            assert "lower DATABASE_CONNECTIONS" in said


@pytest.mark.postgresql
def test_a_row_that_somebody_holds(database: str) -> None:
    env = {"DATABASE_URL": database}
    command("pause", "orders", env=env)
    with psycopg.connect(database) as holder:
        holder.execute("SELECT FROM queues FOR UPDATE")
        said = command("resume", "orders", code=1, env=env)
    assert said == f"DATABASE_URL: no answer in time: {BUSY}\n"


@pytest.mark.sqlite
def test_a_file_that_somebody_writes_to(database: str) -> None:
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as writer:
        writer.execute("BEGIN IMMEDIATE")
        said = findings(1, env={"DATABASE_URL": database})["fault database"]
    assert said == f"DATABASE_URL: database is locked: {BUSY}\n"


@pytest.mark.postgresql
def test_a_disk_that_is_full(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(FULL)
    for said in both({"DATABASE_URL": database}):
        assert said.endswith(": free its disk\n")


def test_a_column_that_is_missing(database: str) -> None:
    """Somebody has changed the table by hand."""
    engine = create_engine(sync_url(database), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE queues RENAME COLUMN paused_at TO since"))
    for said in both({"DATABASE_URL": database}):
        assert "paused_at" in said
        assert said.endswith(": run `poe migrate` (python -m app.migrate)\n")


def test_an_error_that_nobody_can_help(database: str) -> None:
    """A line without advice is better than one with wrong advice."""
    engine = create_engine(sync_url(database), poolclass=NullPool)
    with engine.begin() as connection:
        for statement in REFUSING:
            connection.execute(text(statement))
    said = command("pause", "orders", code=1, env={"DATABASE_URL": database})
    assert said.startswith("not on a Friday")
    assert "migrate" not in said
