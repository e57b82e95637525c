from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from app.core.database import SqliteConnection, async_url, jobs_engine, sync_url


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


@pytest.mark.sqlite
async def test_sqlite_has_a_write_ahead_log() -> None:
    async with jobs_engine.connect() as connection:
        mode = (await connection.execute(text("PRAGMA journal_mode"))).scalar_one()
    assert mode == "wal"
