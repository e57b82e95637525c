"""Runs `poe dev` in a copy of the project."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from devtools import servers
from devtools.commands import COMMANDS
from devtools.processes import free_port, listens, stop, wait_until

POE = [str(Path(sys.executable).with_name("poe")), "--executor", "simple"]
SET_BY_THE_RUN = ("API_KEY", "ENVIRONMENT", "ENV_FILE", "STOP_GRACE", *servers.START)
# Makes its standard input the controlling terminal, then runs the command in its place.
ON_A_TERMINAL = "import os, sys; os.login_tty(0); os.execvp(sys.argv[1], sys.argv[1:])"

ONE_FORMAT = re.compile(r"[-\d]{10}T[:.\d]+Z \[\w+ *\] ")
HAVE_BANNERS = {name for name, command in COMMANDS.items() if " -A " in command}


def unset() -> dict[str, str]:
    """The environment without the variables that the run of the tests has set."""
    return {name: value for name, value in os.environ.items() if name not in SET_BY_THE_RUN}


def python(project: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command, environment = [sys.executable, *arguments], unset() | env
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs. A zombie counts as ended, because the system's init may collect it late."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ends_with_all(process: subprocess.Popen[bytes], end: Callable[[], object], limit: float) -> int:
    """End it this way; returns its exit code. Within the limit all that it started must end."""
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) > len(servers.BROKERS)
    end()
    code = process.wait(60)
    _, left = psutil.wait_procs(family, limit)
    assert [child for child in left if is_alive(child)] == []
    return code


class Dev:
    """A running `poe dev`. It is stopped at the end of the block, if it still runs."""

    def __init__(self, project: Path, *arguments: str, terminal: int | None = None) -> None:
        self._log, port = project / "dev.log", str(free_port())
        command = [*POE, "dev", *arguments]
        if terminal:
            command = [sys.executable, "-c", ON_A_TERMINAL, *command]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env={**unset(), "PORT": port},
                cwd=project,
                stdin=terminal or subprocess.DEVNULL,
                stdout=log if terminal is None else terminal,
                stderr=log if terminal is None else terminal,
            )
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.api.close()
        stop(self.process)

    @property
    def lines(self) -> list[str]:
        return self._log.read_text().splitlines()

    def names(self) -> set[str]:
        """The names of the processes that have written a line. The first line is poe's own."""
        return {line.partition("|")[0].strip() for line in self.lines[1:]}

    def other_formats(self) -> list[str]:
        """The lines of its processes that have another format, without those of banners."""
        said = [line.partition("| ") for line in self.lines[1:]]
        own = {"dev", *HAVE_BANNERS}
        texts = [text for name, _, text in said if name.strip() not in own]
        return [text for text in texts if not ONE_FORMAT.match(text)]

    def value_of(self, what: str) -> str:
        """The value in the launcher's line that begins with this text."""
        said = [line.partition("| ")[2] for line in self.lines if line.startswith("dev ")]
        return next(text.removeprefix(what) for text in said if text.startswith(what))

    def says(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def until(self, ready: Callable[[], bool]) -> None:
        wait_until(ready, self.process, 60)

    def listens(self) -> bool:
        return listens(self.api.base_url.port or 0)

    def answers(self) -> bool:
        try:
            return self.api.get("/health/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def order(self) -> dict[str, Any]:
        """Place an order; returns its job once that has succeeded."""
        answer = self.api.post("/orders", json={"item": "book", "quantity": 1})
        answer.raise_for_status()
        return self.succeeded(answer.json()["data"]["job_id"])

    def succeeded(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = {}

        def has() -> bool:
            job.update(self.api.get(f"/jobs/{job_id}").json()["data"])
            return bool(job["status"] == "succeeded")

        self.until(has)
        return job

    def ends_by(self, end: Callable[[], object]) -> int:
        return ends_with_all(self.process, end, 60)

    def signalled(self, number: signal.Signals) -> Callable[[], None]:
        return lambda: self.process.send_signal(number)
