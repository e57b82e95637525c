"""`jobs doctor` names each fault and what to do, in one line. The tests cause real faults."""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path

import pytest

from tests.engine.delivery.faked_time import faked_time
from tests.engine.operations.command import findings
from tests.engine.operations.command import jobs as jobs_command
from tests.service import Service, copy_database


@pytest.fixture
def database(tmp_path: Path) -> str:
    return copy_database(os.environ["EMPTY_DATABASE"], tmp_path)


def test_wrong_settings() -> None:
    wrong = {"LOG_LEVEL": "LOUD", "LEASE": "0"}
    lines = jobs_command("doctor", code=1, env=wrong).splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["fault", "settings", "LOG_LEVEL:"],
        ["fault", "settings", "LEASE:"],
    ]


def test_a_check_that_cannot_be_imported(tmp_path: Path) -> None:
    """It hides no other finding."""
    service = Service.alone(tmp_path)
    (tmp_path / "app" / "doctor" / "own.py").write_text("import not_there\n")
    said = findings(1, folder=tmp_path, env=service.env)
    assert said["fault own"].startswith("app/doctor/own.py, line 1: ModuleNotFoundError: ")
    assert "no process of " in said["fault queues"]


def test_a_database_that_is_away() -> None:
    said = findings(1, env={"DATABASE_URL": "postgresql://app@127.0.0.1:1/app"})
    assert said["fault database"].startswith("DATABASE_URL: ")
    assert said["fault database"].endswith(": start it, or correct the address\n")


def test_a_database_that_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {"DATABASE_URL": f"postgresql://app@127.0.0.1:{silent.getsockname()[1]}/app"}
        assert "timeout" in findings(1, env=env)["fault database"]


def test_a_schema_that_is_behind(tmp_path: Path) -> None:
    lacks = findings(1, env={"DATABASE_URL": f"sqlite:///{tmp_path}/new.db"})
    assert "run `poe migrate`" in lacks["fault migrations"]


@pytest.mark.sqlite
def test_a_schema_of_another_release_is_noted(database: str) -> None:
    path = database.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO alembic_version VALUES ('jobs_9999')")
    connection.close()
    assert "jobs_9999" in findings(1, env={"DATABASE_URL": database})["note migrations"]


@pytest.mark.sqlite
def test_a_database_that_takes_nothing(database: str) -> None:
    read_only = database.replace("sqlite:///", "sqlite:///file:") + "?mode=ro&uri=true"
    assert "read-only" in findings(1, env={"DATABASE_URL": read_only})["fault database"]


@pytest.mark.postgresql
def test_a_clock_that_is_out(database: str) -> None:
    with faked_time() as time:
        time.shift(-65)
        said = findings(1, env={"DATABASE_URL": database, **time.env})["fault clock"]
    assert said.startswith("the database's clock is 6")
    assert " ahead of this one: " in said


@pytest.mark.postgresql
async def test_more_connections_than_the_server_has(service: Service) -> None:
    said = findings(1, env={**service.env, "DATABASE_CONNECTIONS": "1000"})
    assert "connections, and the server has 97: raise its max_conn" in said["fault database"]
