"""Fixtures: the page of an operator who is logged in, a schedule, and a service with rates.

The module imports nothing of the app: that would read its settings before the servers start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.engine.api.ops import browser, log_in
from tests.engine.api.rates import RATES
from tests.service import Service

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


@pytest.fixture
async def page() -> AsyncIterator[httpx.AsyncClient]:
    async with browser() as client:
        assert (await log_in(client)).status_code == 303
        yield client


@pytest.fixture
async def hourly(session: AsyncSession) -> AsyncIterator[str]:
    """The id of the only schedule. Its next tick is in half an hour."""
    from sqlalchemy import delete, insert

    from app.jobs import Interval, Schedule
    from app.jobs.schedules import definition_of
    from app.jobs.table import db_time, schedules
    from tests.engine import probes

    wanted = definition_of(Schedule("hourly echo", Interval(hours=1), probes.echo, ("tick",)))
    row = {"id": "hourly echo", "task": probes.echo.name, "next_tick": db_time(1800)}
    await session.execute(delete(schedules))
    await session.execute(insert(schedules).values(row | {"definition": wanted}))
    await session.commit()
    yield "hourly echo"
    await session.execute(delete(schedules))
    await session.commit()


@pytest.fixture(scope="module")
async def limited(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """A service behind a proxy, this machine, which tells it the addresses of clients."""
    async with Service.alone(tmp_path_factory.mktemp("limited"), **RATES).start("api") as service:
        yield service
