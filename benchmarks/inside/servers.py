"""Starts real servers. All subjects are measured on the same ones."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

from app.core.database import sync_url
from devtools import postgresql, servers
from devtools.processes import stop
from sqlalchemy import create_engine, make_url, text

TITLES = {
    "postgresql": "PostgreSQL",
    "postgresql-fsync": "PostgreSQL with fsync",
    "sqlite": "SQLite",
}


@contextmanager
def all_servers(folder: Path) -> Iterator[None]:
    brokers = [servers.start(variable, folder) for variable in servers.BROKERS]
    databases = []
    try:
        process, os.environ["POSTGRESQL_URL"] = postgresql.start(folder / "postgresql")
        databases.append(process)
        with patch.object(postgresql, "FAST", []):  # with PostgreSQL's default settings
            process, os.environ["POSTGRESQL_FSYNC_URL"] = postgresql.start(folder / "fsync")
        databases.append(process)
        yield
    finally:
        for process in databases:
            process.send_signal(signal.SIGINT)  # after SIGTERM it waits for its clients
        for process in [*databases, *brokers]:
            stop(process)


def new_database(kind: str, name: str, folder: Path) -> str:
    """Make an empty database; returns its URL."""
    if kind == "sqlite":
        (folder / f"{name}.db").unlink(missing_ok=True)
        return f"sqlite:///{folder.resolve() / name}.db"
    unique = f"{name.replace('-', '_')}_{uuid4().hex}"
    variable = {"postgresql": "POSTGRESQL_URL", "postgresql-fsync": "POSTGRESQL_FSYNC_URL"}[kind]
    server = make_url(os.environ[variable])
    with create_engine(sync_url(str(server)), isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(f"CREATE DATABASE {unique}"))
    return server.set(database=unique).render_as_string(hide_password=False)
