"""`poe dev`: one command starts all of it, one Ctrl-C ends all of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from devtools import servers
from devtools.processes import free_port, spawn, stop, wait_until
from tests.service import ROOT

SET_BY_THE_RUN = ("API_KEY", "ENVIRONMENT", *servers.START)


def succeeded(api: httpx.Client, job_id: str) -> bool:
    return bool(api.get(f"/jobs/{job_id}").json()["data"]["status"] == "succeeded")


def answers(api: httpx.Client) -> bool:
    try:
        return api.get("/health/ready").status_code == 200
    except httpx.HTTPError:
        return False


def is_alive(process: psutil.Process) -> bool:
    """What has ended may wait for its new parent, the system's first process, to notice."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy, so that its database and its servers' data stay apart."""
    for name in ("app", "devtools", "migrations"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_dev_runs_a_job_with_nothing_set_and_leaves_nothing_behind(
    project: Path, monkeypatch: pytest.MonkeyPatch, ending: signal.Signals
) -> None:
    for name in SET_BY_THE_RUN:
        monkeypatch.delenv(name, raising=False)
    port = str(free_port())
    poe = [str(Path(sys.executable).with_name("poe")), "--executor", "simple", "dev"]
    dev = spawn(poe, env={"PORT": port}, cwd=project, log=project / "dev.log")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as api:
            wait_until(lambda: answers(api), dev, 30)
            order = api.post("/orders", json={"item": "book", "quantity": 1})
            assert order.status_code == 201
            job_id = order.json()["data"]["job_id"]
            wait_until(lambda: succeeded(api, job_id), dev, 10)
        family = psutil.Process(dev.pid).children(recursive=True)
        assert family
        os.kill(dev.pid, ending)
        assert dev.wait(30) == 0
        assert [child for child in family if is_alive(child)] == []
        assert "operator key (X-API-Key): " in (project / "dev.log").read_text()
    finally:
        stop(dev)


def test_dev_uses_the_key_that_is_set(project: Path) -> None:
    (project / ".env").write_text("API_KEY=mine\n")
    made = subprocess.run(
        [sys.executable, "-c", "from devtools.dev import make_key; make_key()"],
        cwd=project,
        env={name: value for name, value in os.environ.items() if name != "API_KEY"},
        capture_output=True,
        check=True,
    )
    assert made.stdout == b""


def test_a_process_gets_only_what_it_uses(project: Path) -> None:
    """Whether it is set in the environment or in `.env`, which the process doesn't look into."""
    (project / ".env").write_text("API_KEY=of the file\nMAX_JOBS=3\nPOSTGRES_PASSWORD=x\n")
    script = "import json, sys; from devtools.dev import environment_of as of"
    for name, expected in [("api", "of the file"), ("migrate", "")]:
        made = subprocess.run(
            [sys.executable, "-c", f"{script}; print(json.dumps(of(sys.argv[1])))", name],
            cwd=project,
            env={name: value for name, value in os.environ.items() if name != "API_KEY"},
            capture_output=True,
            check=True,
        )
        env = json.loads(made.stdout)
        assert (env["API_KEY"], env["MAX_JOBS"], env["ENV_FILE"]) == (expected, "3", "")
        assert "POSTGRES_PASSWORD" not in env
        brokers = {env[variable] for variable in servers.BROKERS}
        assert name == "api" or brokers <= {""}
