"""What every test here gets: a world on the back end that `--backend` names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import pytest

from app.config import get_settings
from tests.delivery import probes as delivered
from tests.delivery.world import SETTINGS, Broker, World, broker_of


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
def own_broker(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker | None]:
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


@pytest.fixture(scope="session")
async def healthy(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Two hosts on the run's own broker, which nobody harms."""
    made = World(tmp_path_factory.mktemp("healthy"), backend, None, CELERY_CONCURRENCY="3")
    made.start("api").start_hosts(2)
    yield made
    await made.close()


@pytest.fixture(scope="session", autouse=True)
async def long(healthy: World) -> UUID:
    """A job that runs for ten leases, while the other tests run."""
    return await healthy.submit(delivered.work, "long", 10 * float(SETTINGS["LEASE"]))


@pytest.fixture
def with_broker(world: World, own_broker: Broker | None) -> Broker:
    if own_broker is None:
        pytest.skip(f"{world.backend} has no broker")
    return own_broker
