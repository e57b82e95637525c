"""Real servers for the whole run, and the service on them.

The app reads its settings when it is imported, so the servers start before any test module is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devtools import servers
from devtools.processes import stop
from tests.service import ROOT, Service

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.jobs.runner import Runner

FOLDER = pytest.StashKey[Path]()
STARTED = pytest.StashKey[list[servers.Child]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database", choices=["sqlite", "postgresql"], default="sqlite")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Tests never touch what REDIS_URL or DATABASE_URL name, only TEST_REDIS_URL and so on."""
    folder = Path(tempfile.mkdtemp(prefix="service-"))
    session.config.stash[FOLDER] = folder
    session.config.stash[STARTED] = []
    os.environ.update(
        ENVIRONMENT="test",
        API_KEY="an operator's key of the tests",
        DATABASE_URL=f"sqlite:///{folder}/test.db",
        LEASE="3",
        STOP_GRACE="5",
    )
    wanted = [*servers.BROKERS]
    if session.config.getoption("--database") == "postgresql":
        wanted.append("DATABASE_URL")
    for variable in wanted:
        if given := os.environ.get(f"TEST_{variable}"):
            os.environ[variable] = given
        else:
            session.config.stash[STARTED].append(servers.start(variable, folder))
    subprocess.run([sys.executable, "-m", "app.migrate"], check=True, cwd=ROOT)


def pytest_sessionfinish(session: pytest.Session) -> None:
    for process in session.config.stash.get(STARTED, []):
        stop(process)


@pytest.fixture(scope="session")
async def service(pytestconfig: pytest.Config) -> AsyncIterator[Service]:
    """All processes of the service, started once for the run."""
    folder = pytestconfig.stash[FOLDER] / "service"
    running = Service(folder).start_all()
    yield running
    await running.client.aclose()
    codes = running.stop()
    assert set(codes) <= {0}, f"a process did not end well: {codes}, logs in {folder}"


@pytest.fixture
async def session() -> AsyncIterator[AsyncSession]:
    from app.core.database import AsyncSessionLocal

    async with AsyncSessionLocal() as opened:
        yield opened


@pytest.fixture
async def runner() -> AsyncIterator[Runner]:
    """Runs jobs in this process, where no relay is: a test says what runs when."""
    from app.jobs.runner import running

    async with running(slots=4) as started:
        yield started
