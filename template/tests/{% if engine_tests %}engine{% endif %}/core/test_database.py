from __future__ import annotations

import sqlite3
import traceback
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

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
from app.core.outages import said
from app.jobs.tries import text_of

BACKEND = text("SELECT pg_backend_pid()")
TRANSACTION = text("SELECT pg_current_xact_id()::text")
END_ALL_OTHERS = text(
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
TABLE = "CREATE TEMP TABLE kept (name text UNIQUE DEFERRABLE INITIALLY DEFERRED, n int NOT NULL)"
SECRETS = "INSERT INTO kept SELECT 'TOP' || 'SECRET', 1 FROM generate_series(1, 2)"


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


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("statement", "first"),
    [
        (f"{TABLE}; {SECRETS}; SET CONSTRAINTS ALL IMMEDIATE", "duplicate key value violates"),
        (f"{TABLE}; INSERT INTO kept SELECT 'TOP' || 'SECRET', NULL", "null value in column"),
        ("DO $$ BEGIN EXECUTE 'SELECT 1 / 0 -- TOP' || 'SECRET'; END $$", "division by zero"),
        ("DO $$ BEGIN EXECUTE 'SELEC TOP' || 'SECRET'; END $$", "syntax error"),
    ],
    ids=["a key", "a row", "where", "a statement"],
)
async def test_an_error_shows_no_rows(statement: str, first: str) -> None:
    """PostgreSQL adds what it failed at: the values of a row, or the statement of a trigger."""
    with sync_engine.connect() as connection, pytest.raises(DBAPIError) as in_sync:
        connection.exec_driver_sql(statement)
    async with async_engine.connect() as other:
        with pytest.raises(DBAPIError) as in_async:
            await other.exec_driver_sql(statement)
    with pytest.raises(DBAPIError) as in_control:
        await control(lambda connection: connection.exec_driver_sql(statement))
    for raised in (in_sync, in_async, in_control):
        error = raised.value
        assert said(error).startswith(first)
        assert f"{type(error.orig).__name__}) {first}" in text_of(error)
        for told in (repr(error), text_of(error), *traceback.format_exception(error)):
            assert "TOPSECRET" not in told


@pytest.mark.postgresql
async def test_an_error_of_a_commit_shows_no_rows() -> None:
    async with JobSession() as session:
        await session.execute(text(TABLE))
        await session.execute(text(SECRETS))
        with pytest.raises(IntegrityError, match="duplicate key") as raised:
            await session.commit()
    assert "TOPSECRET" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.postgresql
async def test_an_error_keeps_the_hint_of_the_server() -> None:
    async with async_engine.connect() as connection:
        with pytest.raises(DBAPIError, match="HINT:  No function matches"):
            await connection.execute(text("SELECT nothing_of_this_name()"))


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
