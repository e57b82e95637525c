"""`poe dev` and the servers that it starts say what is wrong, and what to do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import pytest

from devtools import postgresql
from devtools.processes import free_port, stop
from tests.engine.devtools.started import Dev, python


def test_a_second_start_names_the_first_and_how_to_end_it(project: Path) -> None:
    with Dev(project) as dev:
        register = project / ".dev" / "processes"
        dev.until(lambda: register.exists() and "poe dev" in register.read_text())
        refused = python(project, "-m", "devtools.dev")
        pid = register.read_text().split()[0]
        said, advice = refused.stdout + refused.stderr, f"To end it: kill -9 -- -{pid}"
        assert f"an earlier start still runs: poe dev ({pid})" in said
        assert advice in said
        dev.until(dev.answers)
        assert dev.ends_by(partial(os.killpg, int(pid), signal.SIGKILL)) == signal.SIGKILL


def test_a_server_that_ends_ends_dev(project: Path) -> None:
    with Dev(project, "--postgresql") as dev:
        dev.until(dev.answers)
        register = (project / ".dev" / "processes").read_text()
        (server,) = re.findall(r"^(\d+) database$", register, re.MULTILINE)
        assert dev.ends_by(partial(os.kill, int(server), signal.SIGQUIT)) == 1
        assert dev.says("the server of DATABASE_URL ended with ")


def test_a_server_that_does_not_start_says_why(project: Path) -> None:
    def start(**env: str) -> subprocess.CompletedProcess[str]:
        """Start all. As nobody holds its standard input, it stops once it has its servers."""
        supervisor = ("-m", "devtools.supervisor", "--postgresql")
        return python(project, *supervisor, PORT=str(free_port()), **env)

    kept = project / ".dev" / "database"
    refused = start(LC_ALL="no such locale")
    assert "DATABASE_URL: initdb: error: invalid locale settings" in refused.stderr
    assert start().returncode == 0
    home = Path((kept / "home").read_text()) if (kept / "home").exists() else kept
    (home / "data" / "PG_VERSION").write_text("9\n")
    refused = start()
    assert f"the end of {kept.relative_to(project)}/postgresql.log:\n" in refused.stderr
    assert "database files are incompatible with server" in refused.stderr


def test_a_port_is_chosen_once_though_its_server_starts_later(project: Path) -> None:
    """Tests of two services may run at the same time, and a broker that is away keeps its port."""
    mine = free_port()
    ask = f"from devtools.processes import free_port; print(free_port({mine}))"
    assert int(python(project, "-c", ask).stdout) != mine


def test_data_is_kept_where_the_server_can_reach_it() -> None:
    """PostgreSQL runs as another user if root starts it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name, "database")
        process, _ = postgresql.start(folder, keep=True)
        stop(process, by=signal.SIGINT)
        assert (folder / "data" / "PG_VERSION").exists()
        assert not (folder / "home").exists()


def test_data_that_is_gone_is_missed(tmp_path: Path) -> None:
    (tmp_path / "home").write_text(str(tmp_path / "gone"))
    with pytest.raises(RuntimeError, match="is gone"):
        postgresql.start(tmp_path, keep=True)
