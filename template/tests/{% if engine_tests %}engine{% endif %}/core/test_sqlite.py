"""SQLite has one writer. The writers of a process take turns, so none fails because of a lock."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import SyncSessionLocal
from app.core.drivers import SqliteConnection, give_up
from app.jobs import Jobs
from app.jobs.table import db_time, known_tasks
from tests.service import eventually

INSERT = "INSERT INTO t VALUES (1)"
ENDLESS = """
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number)
    SELECT count(*) FROM number
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "test.db") as made:
        made.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (n)")
    made.close()
    return tmp_path / "test.db"


def connect(file: Path, timeout: float = 0) -> SqliteConnection:
    """Open a connection that by default doesn't wait for SQLite's own lock."""
    return sqlite3.connect(
        file,
        timeout=timeout,
        isolation_level="IMMEDIATE",
        check_same_thread=False,
        factory=SqliteConnection,
    )


@pytest.fixture
def pair(file: Path) -> Iterator[tuple[SqliteConnection, SqliteConnection]]:
    both = connect(file, 5), connect(file, 5)  # closing one locks the file for a moment
    yield both
    for each in both:
        with suppress(sqlite3.ProgrammingError):  # the test may have closed it
            each.close()


class Writing(Thread):
    """A write in another thread, which waits for its turn."""

    def __init__(self, write: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._write = write
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._write()
        except Exception as error:
            self.error = error

    async def waits(self) -> bool:
        """Whether it waits for its turn. Raises the error that ended it."""
        if self.error:
            raise self.error
        frame = sys._current_frames().get(self.ident or 0)
        return bool(frame and frame.f_code.co_name == "await_turn")

    async def ended(self) -> None:
        await asyncio.to_thread(self.join, 20)
        assert not self.is_alive()
        assert self.error is None


def commit(connection: SqliteConnection) -> None:
    connection.commit()


def roll_back(connection: SqliteConnection) -> None:
    connection.rollback()


def close(connection: SqliteConnection) -> None:
    connection.close()


def by_statement(connection: SqliteConnection) -> None:
    connection.cursor().execute("COMMIT")


@pytest.mark.parametrize("end", [commit, roll_back, close, by_statement])
async def test_a_writer_waits_until_the_transaction_before_has_ended(
    pair: tuple[SqliteConnection, SqliteConnection], end: Callable[[SqliteConnection], None]
) -> None:
    first, second = pair
    first.cursor().execute(INSERT)
    for write in (
        lambda: second.cursor().execute(INSERT),
        lambda: second.cursor().executemany("INSERT INTO t VALUES (?)", [(1,), (2,)]),
    ):
        writing = Writing(write)
        await eventually(writing.waits)
        end(first)
        await writing.ended()
        second.commit()
        if end is close:
            return
        first.cursor().execute(INSERT)


async def test_many_threads_write_and_none_is_locked_out(file: Path) -> None:
    connections = [connect(file) for _ in range(9)]

    def write(own: SqliteConnection) -> None:
        for _ in range(20):
            own.cursor().execute(INSERT)
            own.cursor().execute("SELECT * FROM t").fetchall()
            own.commit()

    reader, *writers = connections
    for writing in [Writing(partial(write, own)) for own in writers]:
        await writing.ended()
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (160,)
    for each in connections:
        each.close()


@pytest.mark.parametrize(
    "read",
    [
        "SELECT count(*) FROM t",
        "-- it's why\n /* 'for */ SELECT count(*) FROM t",
        "VALUES (0)",
        "WITH a AS (SELECT count(*) AS n FROM t) SELECT n FROM a",
        "/* UPDATE */ with recursive [delete] (n) AS (SELECT 0) SELECT n FROM [delete] -- INSERT",
        "WITH a (n, \"update\") AS (SELECT 0, 'it''s DELETE') SELECT replace(n, 1, 2) + 0 FROM a",
    ],
)
def test_a_reader_waits_for_no_writer(
    pair: tuple[SqliteConnection, SqliteConnection], read: str
) -> None:
    first, second = pair
    first.cursor().execute(INSERT)
    assert second.cursor().execute(read).fetchone() == (0,)
    second.commit()
    second.cursor().execute("PRAGMA foreign_keys = ON")


@pytest.mark.sqlite
async def test_who_looks_at_the_queues_waits_for_no_task_that_has_written(
    session: AsyncSession,
) -> None:
    with SyncSessionLocal() as writing:
        writing.execute(insert(known_tasks).values(name="sqlite.writes", seen_at=db_time(0)))
        assert await Jobs(session).queues()


@pytest.mark.parametrize(
    "write",
    [
        "WITH a (n) AS (SELECT 1) INSERT INTO t SELECT n FROM a",
        "-- WITH\nWITH a (n) AS (SELECT 1) REPLACE INTO t SELECT n FROM a",
        "WITH a (n) AS (SELECT 1) UPDATE t SET n = 2 WHERE n IN (SELECT n FROM a)",
        "WITH a (n) AS (SELECT 1)DELETE FROM t WHERE n IN (SELECT n FROM a)",
    ],
)
async def test_a_write_that_begins_with_with_takes_its_turn_in_a_transaction(
    pair: tuple[SqliteConnection, SqliteConnection], write: str
) -> None:
    """Python's driver begins none for it: it would commit by itself."""
    first, second = pair
    first.cursor().execute(INSERT)
    writing = Writing(lambda: second.cursor().execute(write))
    await eventually(writing.waits)
    first.commit()
    await writing.ended()
    second.rollback()
    assert first.execute("SELECT n FROM t").fetchall() == [(1,)]


@pytest.mark.parametrize("wrong", ["INSERT INTO nowhere VALUES (1)", "DROP TABLE nowhere"])
def test_a_statement_that_fails_keeps_no_turn(
    pair: tuple[SqliteConnection, SqliteConnection], wrong: str
) -> None:
    first, second = pair
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        first.cursor().execute(wrong)
    first.rollback()
    second.cursor().execute(INSERT)
    second.commit()


def test_a_statement_outside_a_transaction_keeps_no_turn(
    pair: tuple[SqliteConnection, SqliteConnection],
) -> None:
    first, second = pair
    first.cursor().execute("CREATE TABLE other (n)")
    second.cursor().execute(INSERT)
    second.commit()


async def test_a_connection_is_given_up_while_another_thread_uses_it(
    pair: tuple[SqliteConnection, SqliteConnection],
) -> None:
    first, second = pair
    first.cursor().execute(INSERT)
    working = Writing(lambda: first.cursor().execute(ENDLESS))

    async def ends() -> bool:
        give_up(first)
        return not working.is_alive()

    await eventually(ends)
    assert isinstance(working.error, sqlite3.ProgrammingError)
    second.cursor().execute(INSERT)
    second.commit()
    for refused in (first.commit, first.rollback, lambda: first.cursor().execute("SELECT 1")):
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            refused()
    assert second.execute("SELECT count(*) FROM t").fetchone() == (1,)


async def test_one_that_is_given_up_while_it_waits_for_its_turn_takes_none(
    pair: tuple[SqliteConnection, SqliteConnection],
) -> None:
    first, second = pair
    first.cursor().execute(INSERT)
    waiting = Writing(lambda: second.cursor().execute(INSERT))
    await eventually(waiting.waits)
    give_up(second)
    first.commit()
    await asyncio.to_thread(waiting.join, 20)
    assert isinstance(waiting.error, sqlite3.ProgrammingError)
    first.cursor().execute(INSERT)
    first.commit()
