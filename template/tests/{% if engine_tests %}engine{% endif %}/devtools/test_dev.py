"""`poe dev`: one command starts all of it, and its end ends all of it, however it comes."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from devtools import servers
from devtools.commands import COMMANDS
from tests.engine.devtools.started import Dev, unset
from tests.service import ROOT

NEW_TASK = """
from app.jobs import task


@task()
async def greet(name: str) -> str:
    return f"Hello {name}"
"""
SUBMIT = """
import asyncio

from app.core.database import AsyncSessionLocal
from app.jobs import Jobs
from app.tasks.greetings import greet


async def main() -> None:
    async with AsyncSessionLocal() as session:
        job = await Jobs(session).submit(greet, "Ada")
        await session.commit()
        print(job.id)


asyncio.run(main())
"""
LEAVE_A_CHILD = """
from pathlib import Path
from devtools.processes import claim, enter, spawn

claim(Path("processes"))
enter(Path("processes"), "worker", spawn(["sleep", "60"], log=Path("log")).pid)
"""

WAIT = """
from devtools.dev import launchers, wait_for
from devtools.processes import spawn

child, above = spawn(["sleep", "60"]), launchers()
print(len(above), flush=True)
print(wait_for(child, child.terminate, above))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy, so that its database and its servers' data stay apart."""
    for name in ("app", "devtools", "migrations"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def python(project: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command, environment = [sys.executable, *arguments], unset() | env
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def test_dev_runs_the_code_as_it_is_now_and_keeps_its_key(project: Path) -> None:
    """Ctrl-C ends the first start, the end of its terminal the second."""
    with Dev(project) as dev:
        dev.until(dev.answers)
        assert dev.order()["result"]["status"] == "processed"
        kept = project / ".dev" / "operator-key"
        key, mode = kept.read_text(), kept.stat().st_mode & 0o777
        assert (dev.value_of("operator key (X-API-Key): "), mode) == (key, 0o600)
        dev.until(lambda: dev.names() == {"dev", "migrate", *COMMANDS})
        assert dev.other_formats() == []
        addresses = {variable: dev.value_of(f"{variable}=") for variable in servers.BROKERS}

        (project / "app" / "tasks" / "greetings.py").write_text(NEW_TASK)
        orders = project / "app" / "tasks" / "orders.py"
        orders.write_text(orders.read_text().replace('"processed"', '"as it is now"'))
        dev.until(lambda: status_of_an_order(dev) == "as it is now")
        submitted = python(project, "-c", SUBMIT)
        assert dev.succeeded(submitted.stdout.strip())["result"] == "Hello Ada"
        assert dev.ends_by(dev.signalled(signal.SIGINT)) == 0

    screen, terminal = pty.openpty()
    os.set_blocking(screen, False)
    with Dev(project, terminal=terminal) as dev:
        os.close(terminal)
        shown: list[str] = []

        def has_started() -> bool:
            with suppress(BlockingIOError):
                shown.append(os.read(screen, 65536).decode())
            return "startup complete" in "".join(shown)

        dev.until(has_started)
        assert f"operator key (X-API-Key): {key}" in "".join(shown)
        for variable, address in addresses.items():
            assert f"{variable}={address}" in "".join(shown)
        assert dev.ends_by(lambda: os.close(screen)) == 0


def status_of_an_order(dev: Dev) -> str | None:
    """None where the API that is stopping closed the connection meanwhile."""
    with suppress(httpx.TransportError):
        return str(dev.order()["result"]["status"])
    return None


def test_dev_on_postgresql_keeps_its_data(project: Path) -> None:
    """SIGTERM ends the first start; the second is killed."""
    with Dev(project, "--postgresql") as dev:
        dev.until(dev.answers)
        job = dev.order()
        assert dev.value_of("DATABASE_URL=").startswith("postgresql://")
        assert dev.ends_by(dev.signalled(signal.SIGTERM)) == 0
    with Dev(project, "--postgresql") as dev:
        dev.until(dev.answers)
        assert dev.succeeded(job["job_id"])["result"] == job["result"]
        assert dev.ends_by(dev.signalled(signal.SIGKILL)) == -signal.SIGKILL


def test_what_an_earlier_start_left_is_named(tmp_path: Path) -> None:
    start = ["-c", LEAVE_A_CHILD]
    assert python(tmp_path, *start, PYTHONPATH=str(ROOT)).returncode == 0
    refused = python(tmp_path, *start, PYTHONPATH=str(ROOT))
    pid = (tmp_path / "processes").read_text().split()[0]
    said = f"an earlier start still runs: worker ({pid})\nTo end it: kill -9 -- -{pid}\n"
    assert (refused.returncode, refused.stderr) == (1, said)
    os.killpg(int(pid), signal.SIGKILL)


def test_a_launcher_that_is_killed_ends_it(tmp_path: Path) -> None:
    """`uv run poe dev` is a uv that waits for another, which waits for it."""
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\n"$@"\nexit $?\n')
    uv.chmod(0o755)
    command = [str(uv), str(uv), sys.executable, "-c", WAIT]
    env = unset() | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout
        assert launcher.stdout.readline() == "2\n"
        launcher.kill()
        launcher.wait()
        assert launcher.stdout.readline() == f"{-signal.SIGTERM}\n"


def test_a_port_in_use_is_named(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        ended = python(project, "-m", "devtools.dev", PORT=port)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"PORT: {port} can't be used")
    assert len(ended.stderr.splitlines()) == 1


def test_dev_uses_the_key_that_is_set(project: Path) -> None:
    (project / ".env").write_text("API_KEY=mine\n")
    script = "from devtools.supervisor import is_set; print(is_set('API_KEY'))"
    assert python(project, "-c", script).stdout == "True\n"


def test_a_process_gets_only_what_it_uses(project: Path) -> None:
    """Whether it is set in the environment or in `.env`, which the process doesn't look into."""
    (project / ".env").write_text("API_KEY=of the file\nMAX_JOBS=3\nPOSTGRES_PASSWORD=x\n")
    script = "import json, sys; from devtools.supervisor import environment_of as of"
    addresses = {variable: os.environ[variable] for variable in servers.BROKERS}
    for name, expected in [("api", "of the file"), ("migrate", "")]:
        show = f"{script}; print(json.dumps(of(sys.argv[1])))"
        made = python(project, "-c", show, name, **addresses)
        env = json.loads(made.stdout)
        assert (env["API_KEY"], env["MAX_JOBS"], env["ENV_FILE"]) == (expected, "3", "")
        assert "POSTGRES_PASSWORD" not in env
        brokers = {env[variable] for variable in servers.BROKERS}
        assert name == "api" or brokers <= {""}
