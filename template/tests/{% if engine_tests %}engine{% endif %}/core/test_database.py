from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.core.control import control
from app.core.database import (
    JobSession,
    async_engine,
    async_url,
    dispose,
    jobs_engine,
    sync_engine,
    sync_url,
)
from app.core.drivers import SqliteConnection, renew_open_connections

BACKEND = text("SELECT pg_backend_pid()")
TRANSACTION = text("SELECT pg_current_xact_id()::text")
END_ALL_OTHERS = text(
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.mark.parametrize(
    ("url", "for_async", "for_sync"),
    [
        ("sqlite:///app.db", "sqlite+aiosqlite:///app.db", "sqlite:///app.db"),
        ("postgresql://u@h/d", "postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql+asyncpg://u@h/d", "postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d"),
    ],
)
def test_one_url_serves_both_kinds_of_engine(url: str, for_async: str, for_sync: str) -> None:
    assert str(async_url(url)) == for_async
    assert str(sync_url(url)) == for_sync


def test_a_closed_connection_gives_its_lock_back(tmp_path: Path) -> None:
    file = tmp_path / "test.db"
    left = sqlite3.connect(file, factory=SqliteConnection)
    left.execute("CREATE TABLE t (n)")
    left.execute("INSERT INTO t VALUES (1), (2)")
    left.commit()
    unfetched = left.execute("UPDATE t SET n = 3 RETURNING n")
    left.close()
    other = sqlite3.connect(file, timeout=0)
    other.execute("UPDATE t SET n = 4")
    other.close()
    del unfetched


async def test_an_error_shows_no_parameters() -> None:
    """This holds for each engine, including that of the jobs engine's own statements."""
    statement, secret = text("SELECT :value FROM nowhere"), {"value": "TOPSECRET"}
    with sync_engine.connect() as connection, pytest.raises(DBAPIError) as in_sync:
        connection.execute(statement, secret)
    async with async_engine.connect() as other:
        with pytest.raises(DBAPIError) as in_async:
            await other.execute(statement, secret)
    with pytest.raises(DBAPIError) as in_control:
        await control(lambda connection: connection.execute(statement, secret))
    for raised in (in_sync, in_async, in_control):
        assert "nowhere" in str(raised.value)
        assert "TOPSECRET" not in str(raised.value)


@pytest.mark.sqlite
async def test_sqlite_has_a_write_ahead_log() -> None:
    async with jobs_engine.connect() as connection:
        mode = (await connection.execute(text("PRAGMA journal_mode"))).scalar_one()
    assert mode == "wal"


@pytest.mark.postgresql
async def test_a_connection_that_the_server_closed_is_renewed() -> None:
    async with async_engine.connect() as other:
        async with jobs_engine.connect() as connection:
            before = await connection.scalar(BACKEND)
        await other.execute(END_ALL_OTHERS)
        async with jobs_engine.connect() as connection:
            assert await connection.scalar(BACKEND) != before


@pytest.mark.postgresql
async def test_what_a_job_writes_commits_at_its_end_only() -> None:
    """Only the engine's own statements commit one by one."""
    async with JobSession() as session:
        transaction = await session.scalar(TRANSACTION)
        assert await session.scalar(TRANSACTION) == transaction


@pytest.mark.postgresql
async def test_open_connections_are_renewed_once_one_was_silent() -> None:
    await dispose()
    before = await backends()
    assert await backends() == before
    renew_open_connections()
    after = await backends()
    assert after.isdisjoint(before)
    assert await backends() == after


async def backends() -> set[object]:
    """The PostgreSQL processes of two async connections and a sync one."""
    async with async_engine.connect() as one, async_engine.connect() as other:
        both = {await one.scalar(BACKEND), await other.scalar(BACKEND)}
    with sync_engine.connect() as third:
        return both | {third.scalar(BACKEND)}
