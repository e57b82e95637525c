"""Three clocks on one database, and a schedule that is due each second.

Imports nothing of the app: it reads its settings then, and the servers have yet to start.
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
    """All started at once, before the database has a table.

    Nobody else may take from the broker meanwhile: jobs of another database mean nothing here.
    """
    from tests.engine.schedules.clocks import EVERY_SECOND, Clocks, empty_database

    folder = tmp_path_factory.mktemp("clocks")
    made = Clocks(folder, DATABASE_URL=empty_database(folder)).declare(EVERY_SECOND)
    made.start_clocks(3)
    await made.migrate()
    yield made
    await made.close()


@pytest.fixture
async def three(shared: Clocks) -> AsyncIterator[Clocks]:
    """Three clocks that tick, the API, and a host."""
    shared.start_clocks(3)
    yield shared
    assert shared.ended == []
