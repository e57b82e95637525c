"""A statement that is given up ends in PostgreSQL, too: it keeps no connection and takes no job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from app.config import get_settings
from app.core import control as module
from app.core import database
from app.core.control import control
from app.core.database import AsyncSessionLocal, dispose
from app.core.outages import is_outage
from app.jobs import Status
from app.jobs.looks import Wanted, look
from tests.engine import probes
from tests.engine.core.waits import outside, wait, waiting
from tests.engine.jobs.rows import statuses, submit
from tests.service import eventually

pytestmark = pytest.mark.postgresql

OPEN = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
BUSY = text(f"{OPEN} AND state <> 'idle'")
ROUNDS = 3


@pytest.fixture(autouse=True)
async def no_connections() -> None:
    await dispose()


@contextmanager
def impatient() -> Iterator[None]:
    """Statements are given up soon. Those before and after it have their time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(database, "REQUEST_LIMIT", 0.2)
        patched.setattr(module, "LIMIT", 0.2)
        yield


async def in_a_request() -> None:
    async with AsyncSessionLocal() as session:
        await (await session.connection()).run_sync(wait)


async def test_a_lock_that_stays_does_not_use_the_servers_connections_up() -> None:
    allowed = get_settings().database_connections
    async with waiting() as watching:
        for _ in range(ROUNDS):
            waits = [in_a_request() for _ in range(allowed)]
            with impatient():
                ended = await asyncio.gather(*waits, control(wait), return_exceptions=True)
            assert all(isinstance(each, OperationalError) and is_outage(each) for each in ended)

        async def are_few() -> bool:
            return bool(await watching.scalar(OPEN) <= allowed)

        await eventually(are_few)


@pytest.mark.usefixtures("no_other_jobs")
async def test_a_look_that_was_given_up_claims_nothing_later() -> None:
    job_id, wanted = await submit(probes.echo, "a"), Wanted(["default"], [probes.echo.name], [])
    async with outside() as other:
        await other.execute(text("BEGIN; LOCK TABLE jobs IN SHARE MODE"))
        with impatient(), pytest.raises(OperationalError), capture_logs() as lines:
            await control(lambda connection: look(connection, wanted, 1))
        await other.execute(text("COMMIT"))

        async def all_rest() -> bool:
            return not await other.scalar(BUSY)

        await eventually(all_rest)
    assert [line["event"] for line in lines] == ["statement.given_up"]
    assert await statuses(job_id) == [Status.PENDING]
