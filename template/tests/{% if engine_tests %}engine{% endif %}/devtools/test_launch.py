"""`poe dev` starts and ends alike, whichever processes it has."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from devtools.commands import ENTRIES
from devtools.dev import REGISTER
from devtools.processes import free_port, listens, spawn, stop, wait_until
from tests.engine.devtools.started import POE, Dev, python, unset
from tests.service import ROOT

LEAVE_A_CHILD = """
from pathlib import Path
from devtools.processes import enter, lock, spawn

lock(Path("processes"))
enter(Path("processes"), "worker", spawn(["sleep", "60"], log=Path("log")).pid)
"""

JOBS = "from app.cli import main; main()"

HANG = "import time; time.sleep(10**6)\n"

WAIT = """
from devtools.dev import launchers, wait_for
from devtools.processes import spawn

child, above = spawn(["sleep", "60"]), launchers()
print(len(above), flush=True)
print(wait_for(child, child.terminate, above))
"""


def is_entered(project: Path, name: str) -> bool:
    """Whether the process has an id."""
    register = project / REGISTER
    return register.exists() and f" {name}\n" in register.read_text()


def test_dev_on_postgresql_keeps_its_data(project: Path) -> None:
    """SIGTERM ends the first start. The second is killed."""
    with Dev(project, "--postgresql") as dev:
        dev.until(dev.answers)
        job = dev.order()
        assert dev.value_of("DATABASE_URL=").startswith("postgresql://")
        assert dev.ends_by(dev.signalled(signal.SIGTERM)) == 0
    with Dev(project, "--postgresql") as dev:
        dev.until(dev.answers)
        assert dev.succeeded(job["job_id"])["result"] == job["result"]
        assert dev.ends_by(dev.signalled(signal.SIGKILL)) == -signal.SIGKILL
    assert not (project / ".dev" / "env").exists()


def test_commands_beside_dev_use_its_servers(project: Path) -> None:
    """The addresses that a killed start has left don't count."""
    addresses = project / ".dev" / "env"
    addresses.parent.mkdir()
    addresses.write_text("DATABASE_URL=postgresql://app@127.0.0.1:1/app\n")
    with Dev(project, "--postgresql") as dev:
        dev.until(dev.answers)
        job_id = dev.order()["job_id"]
        shown = python(project, "-c", JOBS, "show", job_id)
        assert job_id in shown.stdout, shown.stderr
        dev.until(lambda: python(project, "-c", JOBS, "doctor").stdout == "ok     no fault\n")
        assert not (project / "app.db").exists()
        refused = python(project, "-c", "import app.main", ENVIRONMENT="production")
        assert "DATABASE_URL has no password" in refused.stderr
        assert dev.ends_by(dev.signalled(signal.SIGTERM)) == 0
    assert not addresses.exists()


def test_no_request_waits_for_an_api_that_cannot_start(project: Path) -> None:
    """Code that can't be imported replaces no process. An API that can't start closes its port."""
    routes = project / "app" / "api" / "webhooks.py"
    main, lifespan = project / "app" / "main.py", "async with AsyncExitStack() as stack:"
    good = main.read_text()
    with Dev(project) as dev:
        dev.until(dev.answers)
        routes.write_text("from app.services.orders import Nothing\n")
        dev.until(lambda: dev.says("what runs goes on with the code before"))
        assert dev.answers()
        assert [line for line in dev.lines if "webhooks.py, line 1: ImportError" in line]
        assert not dev.says("Traceback")
        routes.unlink()
        for module in ENTRIES:
            file = f"{module.replace('.', '/')}.py"
            whole = (project / file).read_text()
            (project / file).write_text(f"{whole}\nunknown_name\n")
            dev.until(partial(dev.says, f"{file}, line {whole.count(chr(10)) + 2}: NameError"))
            (project / file).write_text(whole)
        main.write_text(good.replace(lifespan, f"raise OSError('away')\n    {lifespan}"))
        dev.until(lambda: dev.says("api ended with 3: it starts again at the next change"))
        dev.until(lambda: not dev.listens())
        main.write_text(good)
        dev.until(dev.answers)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_code_that_hangs_while_it_is_loaded_is_stopped(
    project: Path, number: signal.Signals, code: int
) -> None:
    with Dev(project) as dev:
        dev.until(dev.answers)
        (project / "app" / "tasks" / "hanging.py").write_text(HANG)
        dev.until(lambda: dev.says("changed: app/tasks/hanging.py"))
        dev.until(partial(is_entered, project, "code"))
        assert dev.ends_by(dev.signalled(number)) == code
        assert not dev.says("what runs goes on")


def test_a_migration_that_hangs_is_stopped(project: Path) -> None:
    (project / "migrations" / "env.py").write_text(HANG)
    with Dev(project) as dev:
        dev.until(partial(is_entered, project, "migrate"))
        assert dev.ends_by(dev.signalled(signal.SIGTERM)) == 0
        assert not dev.says("API: ")


def test_what_an_earlier_start_left_is_named(tmp_path: Path) -> None:
    start = ["-c", LEAVE_A_CHILD]
    assert python(tmp_path, *start, PYTHONPATH=str(ROOT)).returncode == 0
    refused = python(tmp_path, *start, PYTHONPATH=str(ROOT))
    pid = (tmp_path / "processes").read_text().split()[0]
    said = f"an earlier start still runs: worker ({pid})\nTo end it: kill -9 -- -{pid}\n"
    assert (refused.returncode, refused.stderr) == (1, said)
    os.killpg(int(pid), signal.SIGKILL)


def test_a_launcher_that_is_killed_ends_it(tmp_path: Path) -> None:
    """In `uv run poe dev` a uv waits for another uv, which waits for `poe dev`."""
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


def test_the_api_alone_uses_the_port_in_the_env_file(project: Path) -> None:
    """An empty variable is unset, as for `poe dev`."""
    port, env = free_port(), {"ENV_FILE": ".env", "PORT": "", "DATABASE_URL": ""}
    (project / ".env").write_text(f"PORT={port}\n")
    api = spawn([*POE, "api"], env=env, cwd=project, log=project / "api.log")
    try:
        wait_until(lambda: listens(port), api, 60)
    finally:
        stop(api)


def test_dev_uses_the_key_that_is_set(project: Path) -> None:
    (project / ".env").write_text("API_KEY=mine\n")
    script = "from devtools.supervisor import is_set; print(is_set('API_KEY'))"
    assert python(project, "-c", script).stdout == "True\n"
