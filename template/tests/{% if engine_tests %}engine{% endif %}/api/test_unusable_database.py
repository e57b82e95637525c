"""While the database is away or refuses writes, answers are 503 and say when to ask again."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from devtools import postgresql
from devtools.processes import stop
from tests.service import ROOT, Service, eventually

ORDER = {"item": "book", "quantity": 1}
LINE = "database.unusable"


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Service]:
    async with Service.alone(tmp_path).start("api") as service:
        yield service


@pytest.fixture
def database(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    process, url = postgresql.start(tmp_path)
    env = {**os.environ, "DATABASE_URL": url}
    subprocess.run([sys.executable, "-m", "app.migrate"], check=True, cwd=ROOT, env=env)
    yield process, url
    process.send_signal(signal.SIGINT)
    stop(process)


def database_is(service: Service, state: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        ready = await service.client.get("/health/ready")
        return bool(ready.json()["data"]["database"] == state)

    return check


async def orders(service: Service, count: int) -> list[httpx.Response]:
    return [await service.client.post("/orders", json=ORDER) for _ in range(count)]


def assert_unusable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    assert isinstance(answer.json()["detail"], str)


@contextmanager
def no_file_grows(pid: int) -> Iterator[None]:
    """Make files of this process refuse to grow, as on a full disk. The log is a file, too."""
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


@pytest.mark.sqlite
@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
async def test_a_full_disk_is_noticed_and_passes(alone: Service) -> None:
    await eventually(database_is(alone, "ok"))
    with no_file_grows(alone.processes["api"].pid):
        for answer in await orders(alone, 3):
            assert_unusable(answer)
        await eventually(database_is(alone, "down"))
    await eventually(database_is(alone, "ok"))
    assert [answer.status_code for answer in await orders(alone, 1)] == [201]


@pytest.mark.postgresql
async def test_a_replica_is_not_ready(alone: Service) -> None:
    """The database is read-only, and old connections have ended, as after a failover."""
    with psycopg.connect(alone.env["DATABASE_URL"], autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await eventually(database_is(alone, "down"))
        assert_unusable((await orders(alone, 1))[0])
        connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())


@pytest.mark.postgresql
@pytest.mark.parametrize("limit", ["lock_timeout", "statement_timeout"])
async def test_a_limit_of_the_server_passes(tmp_path: Path, limit: str) -> None:
    """A migration holds a lock, and the role has a limit, as managed servers give it."""
    async with Service.alone(tmp_path, PGOPTIONS=f"-c {limit}=1000").start("api") as service:
        with psycopg.connect(service.env["DATABASE_URL"]) as migration:
            migration.execute("LOCK TABLE orders")
            assert_unusable((await orders(service, 1))[0])
        assert [answer.status_code for answer in await orders(service, 1)] == [201]
        log = service.log("api")
        assert "Traceback" not in log
        assert log.count(LINE) == 1


@pytest.mark.postgresql
async def test_a_server_that_is_away_is_no_flood_of_the_log(
    database: tuple[subprocess.Popen[bytes], str], tmp_path: Path
) -> None:
    process, url = database
    async with Service(tmp_path / "service", DATABASE_URL=url).start("api") as service:
        logged, began = len(service.log("api")), time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait()
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(orders(service, 25)) for _ in range(8)]
        for each in asked:
            for answer in each.result():
                assert_unusable(answer)
        assert (await service.client.get("/health/live")).status_code == 200
        log = service.log("api")[logged:]
        assert "Traceback" not in log
        told = [line for line in log.splitlines() if "[warning" in line or "[error" in line]
        assert 1 <= len(told) <= time.monotonic() - began + 1
