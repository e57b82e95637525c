"""Starts all processes for `poe dev`, starts them again when `app/` changes, and stops them.

The API and the workers stop first, the brokers last: else a worker would wait for its broker to
come back. Each line of their output begins with the name of its process.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from dotenv import dotenv_values
from watchfiles import PythonFilter, watch

from app.config import ENV_FILE, Settings, get_settings, unknown_variables
from devtools import servers
from devtools.commands import COMMANDS, ENTRIES, SECRETS
from devtools.dev import ADDRESSES, REGISTER
from devtools.processes import enter, listening, lock, spawn, stop

DATA = REGISTER.parent
COLOURS = (36, 33, 35, 32, 34, 31)
WIDTH = max(len(name) for name in [*COMMANDS, "migrate"])
HURRY = {"STOP_GRACE": "2"}  # seconds: a change of the code doesn't wait for long jobs
LOAD = f"from app.core.loading import load_module; [*map(load_module, {ENTRIES})]"
IN_COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ

writing = threading.Lock()
stopping = threading.Event()
WATCHING: dict[str, Any] = {
    "watch_filter": PythonFilter(),
    "stop_event": stopping,
    "rust_timeout": 200,  # milliseconds between looks at the processes
    "yield_on_timeout": True,
}


def say(name: str, text: str) -> None:
    """Write one line. A closed terminal raises no error."""
    begin = f"{name:{WIDTH}} |"
    if IN_COLOUR and name in COMMANDS:
        begin = f"\033[{COLOURS[[*COMMANDS].index(name) % len(COLOURS)]}m{begin}\033[0m"
    with writing, suppress(OSError):
        sys.stdout.buffer.write(f"{begin} {text}\n".encode(errors="replace"))
        sys.stdout.buffer.flush()


def is_set(variable: str) -> bool:
    """Whether the variable is set in the environment or in `.env`."""
    return variable.lower() in get_settings().model_fields_set


def operator_key(folder: Path) -> str:
    """The operators' key. The first start makes it, and only its owner can read the file."""
    path = folder / "operator-key"
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text()


def environment_of(name: str) -> dict[str, str]:
    """The variables for a process, without keys and addresses that only other processes use.

    An empty variable is unset. As ENV_FILE is empty, the process doesn't read `.env` itself.
    """
    fields = {name.upper() for name in Settings.model_fields}
    settings = {key: value for key, value in in_env_file().items() if key.upper() in fields}
    here = {key: value for key, value in os.environ.items() if value}
    others = {variable for used in SECRETS.values() for variable in used} - {*SECRETS[name]}
    fixed = {"PYTHONUNBUFFERED": "1", "ENV_FILE": ""} | ({"FORCE_COLOR": "1"} if IN_COLOUR else {})
    return HURRY | settings | here | metrics_of(name) | dict.fromkeys(others, "") | fixed


def metrics_of(name: str) -> dict[str, str]:
    """If METRICS_PORT is set, the API uses it, and the other processes use the ports after it."""
    if (first := get_settings().metrics_port) and name in COMMANDS:
        return {"METRICS_PORT": str(first + [*COMMANDS].index(name))}
    return {"METRICS_PORT": ""}


def in_env_file() -> dict[str, str]:
    found = dotenv_values(ENV_FILE) if ENV_FILE else {}
    return {key: value for key, value in found.items() if value is not None}


def listener() -> socket.socket:
    """The API's socket. It stays open while the API starts again, so that requests wait."""
    return listening(os.environ.get("PORT") or in_env_file().get("PORT") or "8000")


class Supervisor:
    """The processes that run, by name."""

    def __init__(self, api: socket.socket) -> None:
        self._api = api
        self._servers: dict[str, servers.Child] = {}
        self._running: dict[str, servers.Child] = {}
        self._readers: dict[str, threading.Thread] = {}

    def run(self, variables: Iterable[str]) -> None:
        """Run until this is stopped, or a process ends by itself."""
        for variable in variables:
            self._start_server(variable)
        if stopping.is_set() or not self._migrate():
            return
        say("dev", "API: http://{}:{}/docs   Ctrl-C ends it all".format(*self._api.getsockname()))
        self._start()
        if ended := self._watch_code():
            say("dev", f"{ended}: stopping")

    def stop(self) -> None:
        """Stop the processes all at once, as each may take its grace, and then the brokers."""
        self._stop(self._running)
        for variable, server in self._servers.items():
            servers.end(variable, server)

    def _start_server(self, variable: str) -> None:
        """Raises SystemExit if the server isn't installed, or doesn't start."""
        try:
            server = servers.start_for_good(variable, DATA)
        except (OSError, RuntimeError) as error:
            sys.exit(f"{variable}: {error}")
        self._servers[variable] = server
        enter(REGISTER, variable.removesuffix("_URL").lower(), server.pid)
        say("dev", f"{variable}={os.environ[variable]}")

    def _migrate(self) -> bool:
        """Bring the database up to date. Returns whether it succeeded. If not, a line says why."""
        arguments = ["-m", "app.migrate", "--compare"]
        return self._succeeds("migrate", arguments, environment_of("migrate"))

    def _succeeds(self, name: str, arguments: list[str], env: dict[str, str]) -> bool:
        child = self._spawn(name, [sys.executable, *arguments], env)
        while child.poll() is None and not stopping.wait(0.05):
            pass
        self._stop({name: child})
        return child.returncode == 0 and not stopping.is_set()

    def _start(self) -> None:
        for name, command in COMMANDS.items():
            fds = [self._listener()] if name == "api" else []
            whole = shlex.split(command) + [f"--fd={fd}" for fd in fds]
            self._running[name] = self._spawn(name, whole, environment_of(name), fds)

    def _listener(self) -> int:
        if self._api.fileno() < 0:
            self._api = listener()
        return self._api.fileno()

    def _spawn(
        self, name: str, command: list[str], env: dict[str, str], fds: Sequence[int] = ()
    ) -> servers.Child:
        child = spawn(command, env=env, output=subprocess.PIPE, pass_fds=fds)
        enter(REGISTER, name, child.pid)
        self._readers[name] = threading.Thread(target=pass_on, args=[name, child.stdout])
        self._readers[name].daemon = True
        self._readers[name].start()
        return child

    def _stop(self, children: dict[str, servers.Child]) -> None:
        with ThreadPoolExecutor(len(children) or 1) as pool:
            list(pool.map(stop, children.values()))
        for name in children:
            self._readers[name].join(1)
        children.clear()

    def _watch_code(self) -> str | None:
        """Start all again at each change. Returns which server ended, or which first process."""
        changed = False
        for changes in watch("app", **WATCHING):
            if changes:
                changed = True
                self._start_again({os.path.relpath(path) for _, path in changes})
            for variable, server in self._servers.items():
                if server.poll() is not None:
                    return f"the server of {variable} ended with {server.returncode}"
            for name, child in list(self._running.items()):
                if child.poll() is not None:
                    ended = f"{name} ended with {child.returncode}"
                    if not changed:
                        return ended
                    say("dev", f"{ended}: it starts again at the next change")
                    if name == "api":
                        self._api.close()  # nobody would answer there
                    self._stop({name: self._running.pop(name)})
        return None

    def _start_again(self, files: set[str]) -> None:
        say("dev", f"changed: {', '.join(sorted(files))}")
        if self._succeeds("code", ["-c", LOAD], environment_of("api")) and self._migrate():
            self._stop(self._running)
            self._start()
        elif not stopping.is_set():
            say("dev", "what runs goes on with the code before, until the next change")


def pass_on(name: str, output: BinaryIO) -> None:
    for line in output:
        say(name, line.decode(errors="replace").rstrip("\n"))


def wait_for_the_end() -> None:
    """Wait until `poe dev` ends, which has the other end of this pipe."""
    os.read(sys.stdin.fileno(), 1)
    stopping.set()


def main() -> int:
    parser = argparse.ArgumentParser("poe dev", description="Start everything; Ctrl-C ends it.")
    parser.add_argument("--postgresql", action="store_true", help="a database in .dev, not SQLite")
    own_database = parser.parse_args().postgresql
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    threading.Thread(target=wait_for_the_end, daemon=True).start()
    DATA.mkdir(exist_ok=True)
    lock(REGISTER)
    enter(REGISTER, "poe dev", os.getpid())
    ADDRESSES.unlink(missing_ok=True)  # a killed start has left it
    if own_database and is_set("DATABASE_URL"):
        parser.error("--postgresql starts a database of its own, and DATABASE_URL names one")
    wanted = [*servers.BROKERS, *["DATABASE_URL"] * own_database]
    supervisor = Supervisor(listener())
    for unknown, nearest in unknown_variables():
        say("dev", f"nothing reads {unknown} of .env" + f": is it {nearest}?" * bool(nearest))
    if not is_set("API_KEY"):
        os.environ["API_KEY"] = operator_key(DATA)
        say("dev", f"operator key (X-API-Key): {os.environ['API_KEY']}")
    try:
        supervisor.run(variable for variable in wanted if not is_set(variable))
    finally:
        supervisor.stop()
        ADDRESSES.unlink(missing_ok=True)
    return 0 if stopping.is_set() else 1


if __name__ == "__main__":
    raise SystemExit(main())
