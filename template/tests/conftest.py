"""Starts real servers for the whole run, and the service on them.

The app reads its settings when it is imported. So the servers start before tests are imported.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from httpx import ASGITransport, AsyncClient

from devtools import servers
from devtools.processes import stop
from tests.service import API_ENDED, ROOT, Service, copy_database, drop_created

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tests.jobs import OwnJobs

FOLDER = pytest.StashKey[Path]()
STARTED = pytest.StashKey[dict[str, servers.Child]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database", choices=["sqlite", "postgresql"], default="sqlite")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Tests never use the server of DATABASE_URL, only that of TEST_DATABASE_URL, and so on.

    Neither they nor the processes that they start read `.env`, or a setting of the owner's shell.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):  # they end the servers, too, as Ctrl-C does
        signal.signal(number, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="service-"))
    session.config.stash[FOLDER] = folder
    session.config.stash[STARTED] = {}
    os.environ["ENV_FILE"] = ""
    for name in import_module("app.config").Settings.model_fields:
        os.environ.pop(name.upper(), None)
    os.environ.update(
        ENVIRONMENT="test",
        API_KEY="an operator's key of the tests",
        DATABASE_URL=f"sqlite:///{folder}/test.db",
        LEASE="3",
        MAIL_RATE="off",
        STOP_GRACE="5",
        DRAIN_SECONDS="0",
        PYTHONPATH=".",  # a process in a copy of the code imports the copy
    )
    wanted = [*servers.BROKERS]
    if session.config.getoption("--database") == "postgresql":
        wanted.append("DATABASE_URL")
    for variable in wanted:
        if given := os.environ.get(f"TEST_{variable}"):
            os.environ[variable] = given
            continue
        try:
            session.config.stash[STARTED][variable] = servers.start(variable, folder)
        except FileNotFoundError as missing:
            reason = str(missing).replace(variable, f"TEST_{variable}")
            pytest.exit(f"nothing was tested: {reason}", returncode=1)
        except RuntimeError as failed:
            pytest.exit(str(failed), returncode=1)
    import_module("app.core.logging").configure_logging()  # it reads the settings above
    if subprocess.run([sys.executable, "-m", "app.migrate", "--compare"], cwd=ROOT).returncode:
        pytest.exit("the database of the tests can't be migrated, as is said above", returncode=1)
    os.environ["EMPTY_DATABASE"] = copy_database(os.environ["DATABASE_URL"], folder)


def pytest_report_header() -> str:
    return "tests of the service: half a minute on two quiet cores, most of it to start processes"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Delete the logs, unless the run has failed."""
    if exitstatus == 0:
        atexit.register(shutil.rmtree, session.config.stash[FOLDER], ignore_errors=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End all processes, even if the start failed halfway, or a test left a service running."""
    for process in Service.spawned:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    started = config.stash.get(STARTED, {})
    for variable, process in started.items():
        if variable == "DATABASE_URL":  # after SIGTERM PostgreSQL waits for its clients
            process.send_signal(signal.SIGINT)
        stop(process)
    if "DATABASE_URL" not in started:
        drop_created()


@pytest.fixture(scope="session")
async def service(pytestconfig: pytest.Config) -> AsyncIterator[Service]:
    """The service with all its processes, started once for the run, on a database of its own."""
    folder = pytestconfig.stash[FOLDER] / "service"
    running = Service.alone(folder).start_all()
    yield running
    await running.client.aclose()
    codes = running.stop()
    assert set(codes) <= {0, API_ENDED}, f"a process failed at its end: {codes}; logs in {folder}"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> float:
    """Let the engine's statements take longer on a busy machine. Returns their usual limit."""
    from app.core import control

    usual = control.LIMIT
    monkeypatch.setattr(control, "LIMIT", 15)
    return usual


@pytest.fixture
async def session() -> AsyncIterator[AsyncSession]:
    """A session that keeps neither requests nor jobs waiting, once its writes are committed."""
    from app.core.database import JobSession

    async with JobSession() as opened:
        yield opened


@pytest.fixture
async def api() -> AsyncIterator[AsyncClient]:
    """The API in this process. Jobs that it submits wait until the test runs them (`own_jobs`)."""
    from app.main import app

    transport = ASGITransport(app)
    async with AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.fixture
async def own_jobs() -> OwnJobs:
    """Finds and runs the jobs of this process. There are none when the test begins."""
    from tests.jobs import OwnJobs

    found = OwnJobs()
    await found.clear()
    return found
