"""Fixtures for tests of delivery: worlds on the back end that `--backend` names.

The module imports nothing of the app: that would read its settings before the servers start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from devtools.servers import BROKER_OF

if TYPE_CHECKING:
    from tests.engine.broker import Broker
    from tests.engine.delivery.world import World


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", help="that the tests of delivery run on")


def chosen(config: pytest.Config) -> str:
    """The back end of `--backend`, or by default the one that carries orders."""
    from app.config import get_settings

    return str(config.getoption("--backend", None) or get_settings().queues["orders"])


def is_about_another(item: pytest.Item, backend: str) -> bool:
    only = item.get_closest_marker("backend")
    if only and backend not in only.args:
        return True
    needs_broker = isinstance(item, pytest.Function) and "with_broker" in item.fixturenames
    return needs_broker and backend not in BROKER_OF


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that are about other back ends."""
    here = [item for item in items if item.path.parent == Path(__file__).parent]
    for item in here:
        item.add_marker("delivery")
    left_out = [item for item in here if is_about_another(item, chosen(config))]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def backend(pytestconfig: pytest.Config) -> str:
    return chosen(pytestconfig)


@pytest.fixture(scope="session")
def own_broker(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker | None]:
    """A broker for all worlds. It may hold messages about jobs of a world that has ended."""
    from tests.engine.broker import Broker

    variable = BROKER_OF.get(backend)
    broker = Broker(variable, tmp_path_factory.mktemp("broker")) if variable else None
    yield broker
    if broker:
        broker.kill()


@pytest.fixture(scope="module")
async def shared(
    backend: str, own_broker: Broker | None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    from tests.engine.delivery.world import World

    made = World(tmp_path_factory.mktemp("world"), backend, own_broker, STOP_GRACE="1")
    yield made
    await made.close()


@pytest.fixture
async def world(shared: World) -> World:
    """The module's world. Its broker, its API and one host run."""
    await shared.as_it_should_be()
    return shared


@pytest.fixture(scope="session")
async def healthy(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A world with two hosts on the run's own broker. No test kills or freezes any of them."""
    from tests.engine.delivery.world import World

    made = World(tmp_path_factory.mktemp("healthy"), backend, None, RELAY_INTERVAL="0.3")
    made.start("api").start_hosts(2)
    yield made
    await made.close()


@pytest.fixture(scope="session")
async def long(healthy: World) -> UUID:
    """A job that runs for ten leases, while the other tests run."""
    from tests.engine.delivery.probes import work

    return await healthy.submit(work, "long", 10 * float(healthy.env["LEASE"]))


@pytest.fixture(autouse=True)
def begin_the_long_job(request: pytest.FixtureRequest) -> None:
    """Slow tests don't start it, since they need the machine for themselves."""
    slow = request.node.get_closest_marker("slow")
    if "healthy" in request.fixturenames and not slow:
        request.getfixturevalue("long")


@pytest.fixture
def with_broker(world: World, own_broker: Broker) -> Broker:
    """The world's broker. Tests that use it are deselected for a back end without a broker."""
    return own_broker
