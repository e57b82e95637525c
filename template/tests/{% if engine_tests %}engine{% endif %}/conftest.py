"""Fixtures and options for all tests of the engine.

The module imports nothing of the app: that would read its settings before the servers start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.service import Service

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.jobs.host import Host

Service.probes.append(Path(__file__).with_name("probes.py"))


def pytest_report_collectionfinish() -> str:
    return "tests of the engine: some minutes more; `poe delivery` and `poe schedules`: many"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that are about the other database."""
    other = {"sqlite", "postgresql"} - {config.getoption("--database")}
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in other)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
async def host(patience: float, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    """A host on the database of this process. Only tests ring for it."""
    from app.config import get_settings
    from app.jobs.host import hosting

    monkeypatch.setattr("app.core.control.LIMIT", patience)  # else it may lose its leases
    async with hosting(get_settings().queues["default"], slots=4) as started:
        yield started


@pytest.fixture
async def no_other_jobs(session: AsyncSession) -> None:
    """Delete the jobs that other tests have left, because a host takes each job that is due."""
    from sqlalchemy import delete

    from app.jobs.table import jobs, known_tasks, processes

    for table in (jobs, known_tasks, processes):
        await session.execute(delete(table))
    await session.commit()


@pytest.fixture
async def no_other_schedules(session: AsyncSession) -> AsyncIterator[None]:
    """Delete the schedules that other tests have left, and those of the test afterwards."""
    from sqlalchemy import delete

    from app.jobs.table import schedules

    await session.execute(delete(schedules))
    await session.commit()
    yield
    await session.rollback()
    await session.execute(delete(schedules))
    await session.commit()
