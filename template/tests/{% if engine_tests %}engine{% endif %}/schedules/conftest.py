"""Fixtures: three clocks on one database, and a schedule that is due each second.

The module imports nothing of the app: that would read its settings before the servers start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.engine.schedules.clocks import Clocks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker("delivery")


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Clocks]:
    """Three clocks that started at once, before the database had a table.

    No other worker may use the broker at the same time: it would drop this database's messages.
    """
    from tests.engine.schedules.clocks import EVERY_SECOND, Clocks, empty_database

    folder = tmp_path_factory.mktemp("clocks")
    made = Clocks(folder, DATABASE_URL=empty_database(folder)).declare(EVERY_SECOND)
    made.begin(3)
    await made.migrate()
    yield made
    await made.close()


@pytest.fixture
async def three(shared: Clocks) -> AsyncIterator[Clocks]:
    """Three running clocks, the API, and a host. None may end by itself during the test."""
    await shared.start_clocks(3)
    yield shared
    assert shared.ended == []
