"""What every test here gets: a world on the back end that `--backend` names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from app.config import get_settings
from tests.delivery.world import Broker, World, broker_of


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "delivery" in item.path.parts:
            item.add_marker("delivery")


@pytest.fixture(scope="session")
def backend(pytestconfig: pytest.Config) -> str:
    """By default the one that carries orders."""
    named: str = pytestconfig.getoption("--backend") or get_settings().queues["orders"]
    return named


@pytest.fixture(scope="session")
def own_broker(
    backend: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker | None]:
    """One for all worlds; a new one knows none of the jobs that an old one left there."""
    variable = broker_of(backend)
    broker = Broker(variable, tmp_path_factory.mktemp("broker")) if variable else None
    yield broker
    if broker:
        broker.kill()


@pytest.fixture(scope="module")
async def shared(
    backend: str, own_broker: Broker | None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    made = World(tmp_path_factory.mktemp("world"), backend, own_broker, STOP_GRACE="1")
    yield made
    await made.close()


@pytest.fixture
async def world(shared: World) -> World:
    """The module's, with its broker, its API and one host running."""
    await shared.as_it_should_be()
    return shared


@pytest.fixture
def with_broker(world: World, own_broker: Broker | None) -> Broker:
    if own_broker is None:
        pytest.skip(f"{world.backend} has no broker")
    return own_broker
