"""Runs two releases on one database, under load."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest

from tests.evidence import Evidence
from tests.ports import free_port, listens
from tests.releases import Release, addresses, copied, real_servers
from tests.renders import RENDERS
from tests.services import Service

SETTINGS = {
    "ENVIRONMENT": "test",
    "API_KEY": "an operator's key of the tests",
    "LEASE": "3",
    "STOP_GRACE": "5",
    "CELERY_CONCURRENCY": "3",
    "LOG_LEVEL": "WARNING",
    "LOG_JSON": "true",
    "UVICORN_ACCESS_LOG": "false",
}
FILES = {"RUNS": "runs", "ACCEPTED": "accepted", "PORTS": "ports", "MAY_END": "may-end"}
LIMIT = 120  # seconds of patience, on a slow machine; a migration itself waits for longer
KILLED_AFTER = 30  # seconds that a supervisor waits for a process of 0.1.0 that it stops
API_ENDED = -signal.SIGTERM  # uvicorn raises the signal again once it has shut down
LOAD = "old-load"

Child = subprocess.Popen[bytes]


class Deployment:
    """Processes are named by release and kind: `old-api`, `old-worker-2`, `new-worker`."""

    def __init__(self, folder: Path, releases: Mapping[str, Release], env: dict[str, str]) -> None:
        self.folder, self.releases = folder, releases
        self.env = SETTINGS | env | {name: str(folder / file) for name, file in FILES.items()}
        self.processes: dict[str, Child] = {}
        self.seen = Evidence(folder / FILES["RUNS"], folder / FILES["ACCEPTED"])

    def host(self, release: str) -> str:
        """The process of this release that runs jobs."""
        (kind,) = self.releases[release].hosts.values()
        return f"{release}-{kind}"

    def migrate(self, release: str) -> None:
        """Migrate, as each release does before its processes start."""
        name = f"{release}-migrate"
        self._spawn(name, ["python", "-m", "app.migrate"])
        self._wait_for_end(name)

    def start(self, *names: str) -> None:
        """Start processes. An API gets a share of the load as soon as it answers."""
        for name in names:
            release, _, kind = name.partition("-")
            command = shlex.split(self.releases[release].commands[kind.removesuffix("-2")])
            if kind.startswith("api"):
                self.seen.ports[name] = port = free_port()
                command += ["--host", "127.0.0.1", "--port", str(port)]
            self._spawn(name, command)
        for name in self.seen.ports.keys() & set(names):
            self.until(partial(listens, self.seen.ports[name]), f"{name} answers")
        self._balance()

    def start_all(self, release: str) -> None:
        self.start(*self.all_of(release))

    def all_of(self, release: str) -> list[str]:
        return [f"{release}-{kind}" for kind in self.releases[release].commands]

    def submit(self, what: str) -> None:
        """Submit by a script of the old release; `WHAT` in `inside/submit.py` lists the choices."""
        self._spawn("old-script", ["python", "-m", "inside.submit", what])
        self._wait_for_end("old-script")

    def begin_load(self) -> None:
        """Post orders to each API, and submit jobs by a script of the old release."""
        self._spawn(LOAD, ["python", "-m", "inside.load"], stdin=subprocess.PIPE)

    def end_load(self) -> None:
        """End the load, and wait until each submit that has begun is accepted."""
        self.check_all()
        self._stdin().close()
        self._wait_for_end(LOAD)

    def hold(self) -> str:
        """Submit a job that runs until `let_end`. Returns the name of the process that runs it."""
        stdin = self._stdin()
        stdin.write(b"\n")
        stdin.flush()
        self.until(lambda: self.seen.hosts_of("hold 0"), "a job that holds has begun")
        return self.seen.hosts_of("hold 0")[0]

    def let_end(self) -> None:
        (self.folder / FILES["MAY_END"]).touch()

    def stop(self, *names: str) -> None:
        """Send SIGTERM. The load is told afterwards: like a client it must notice a stopped API."""
        self.check_all()
        for name in names:
            self.processes[name].terminate()
            self._wait_for_end(name)
        self._balance()

    def kill(self, name: str) -> None:
        """Send SIGKILL to a process and to all that it started."""
        self.check_all()
        kill(self.processes.pop(name))
        self._balance()

    def stop_or_kill(self, name: str) -> None:
        """Stop a process of 0.1.0 as its supervisor does: its Celery worker may hang at its end."""
        self.check_all()
        process = self.processes.pop(name)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            assert process.wait(KILLED_AFTER) == 0, self.log(name)
        kill(process)

    def close(self) -> None:
        """Kill the processes that a failed test has left."""
        for process in self.processes.values():
            kill(process)

    def will_begin(self, count: int, *hosts: str, by: str = "") -> None:
        """Wait until these hosts have begun so many more jobs that the API `by` accepted."""
        enough = self.seen.begun(*hosts, by=by) + count
        what = f"{' and '.join(hosts)} begin {count} more jobs {by and f'of {by}'}"
        self.until(lambda: self.seen.begun(*hosts, by=by) >= enough, what)

    def result(self) -> dict[str, Any]:
        """Wait until no job is left to run. Returns the output of `inside/count.py`."""
        old = self.releases["old"]
        command = ["python", "-m", "inside.count", str(LIMIT)]
        env = old.env(**self.env)
        done = subprocess.run(command, cwd=old.folder, env=env, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def until(self, true: Callable[[], object], what: str) -> None:
        """Wait until it is true. Fails after the limit, or if a process ends by itself."""
        deadline = time.monotonic() + LIMIT
        while not true():
            self.check_all()
            if time.monotonic() > deadline:
                pytest.fail(f"still false after {LIMIT} s: {what}\n{self.state()}", pytrace=False)
            time.sleep(0.1)

    def check_all(self) -> None:
        for name, process in self.processes.items():
            if process.poll() is not None:
                said = f"{name} ended with {process.returncode}, though the test didn't stop it"
                pytest.fail(f"{said}\n{self.log(name)}", pytrace=False)

    def state(self) -> str:
        """How many jobs were accepted and begun, and the end of each log."""
        logs = (f"{name}:\n{self.log(name, 10)}" for name in self.seen.pids)
        return "\n\n".join([self.seen.summary(), *logs])

    def log(self, name: str, count: int = 40) -> str:
        text = (self.folder / f"{name}.log").read_text("utf-8", "replace")
        return "\n".join(line[:500] for line in text.splitlines()[-count:])

    def _balance(self) -> None:
        """Tell the load which APIs run. It may read at any moment, so the file is replaced."""
        ports = [port for name, port in self.seen.ports.items() if name in self.processes]
        draft = self.folder / "ports.draft"
        draft.write_text(" ".join(map(str, ports)))
        draft.replace(self.folder / FILES["PORTS"])

    def _stdin(self) -> IO[bytes]:
        stdin = self.processes[LOAD].stdin
        assert stdin
        return stdin

    def _wait_for_end(self, name: str) -> None:
        """Wait for the end of a process. Fails unless it ends in time, and without an error."""
        with suppress(subprocess.TimeoutExpired):
            if self.processes[name].wait(LIMIT) in (0, API_ENDED):
                del self.processes[name]
                return
        code = self.processes[name].poll()
        pytest.fail(f"{name} failed, or didn't end ({code})\n{self.log(name)}", pytrace=False)

    def _spawn(self, name: str, command: list[str], stdin: int = subprocess.DEVNULL) -> None:
        release = self.releases[name.partition("-")[0]]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = self.processes[name] = subprocess.Popen(
                command,
                cwd=release.folder,
                env=release.env(**self.env),
                stdin=stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.seen.pids[name] = process.pid


def switching(
    template: Path, folder: Path, one: str, other: str, *servers: str
) -> AbstractContextManager[Deployment]:
    """A service before and after its switch from one render's back ends to another's."""
    before, after = (replace(RENDERS[name], engine_tests=False) for name in (one, other))
    Service(template, folder / "before").render(before.answers).committed()
    shutil.copytree(folder / "before", folder / "after")
    Service(template, folder / "after").update(**after.answers)
    started = dict.fromkeys(addresses(after), "new")
    started |= dict.fromkeys((*servers, *addresses(before)), "old")
    return between(folder, folder / "before", folder / "after", started)


@contextmanager
def between(folder: Path, old: Path, new: Path, started: Mapping[str, str]) -> Iterator[Deployment]:
    """Both releases. `started` says which servers are needed, and which release starts each.

    The database is a file unless DATABASE_URL is in `started`.
    """
    releases = {"old": copied(old, folder / "old"), "new": copied(new, folder / "new")}
    env = {"DATABASE_URL": f"sqlite:///{folder}/test.db"}
    with ExitStack() as stack:
        for variable, name in started.items():
            env |= stack.enter_context(real_servers(releases[name], folder / "servers", variable))
        deploy = Deployment(folder, releases, env)
        stack.callback(deploy.close)
        yield deploy


def kill(process: Child) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
