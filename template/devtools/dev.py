"""`poe dev`: everything on this machine from one command, ended by one Ctrl-C.

Children run in sessions of their own, so that only this launcher signals them: the API and the
workers first, the brokers last, or a worker would wait for its broker to come back.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from dotenv import dotenv_values

from app.config import ENV_FILE, Settings, get_settings
from app.core.logging import configure_logging
from devtools import servers
from devtools.commands import COMMANDS, SECRETS
from devtools.processes import spawn, stop
from devtools.servers import Child

DATA = Path(".dev")
PORT = os.environ.get("PORT", "8000")

stopping = threading.Event()


def is_set(variable: str) -> bool:
    """In the environment or in `.env`."""
    return variable.lower() in get_settings().model_fields_set


def make_key() -> None:
    if not is_set("API_KEY"):
        os.environ["API_KEY"] = secrets.token_urlsafe(32)
        print(f"operator key (X-API-Key): {os.environ['API_KEY']}", flush=True)


def command_of(name: str) -> list[str]:
    command = shlex.split(COMMANDS[name])
    if name == "api":
        command += ["--reload", "--reload-dir", "app", "--host", "127.0.0.1", "--port", PORT]
    return command


def environment_of(name: str) -> dict[str, str]:
    """What is set, here or in `.env`, without the keys and addresses that only others use.

    An empty one is unset; without ENV_FILE the process doesn't look into `.env` itself.
    """
    in_file = dotenv_values(ENV_FILE) if ENV_FILE else {}
    fields = {name.upper() for name in Settings.model_fields}
    settings = {key: value for key, value in in_file.items() if key.upper() in fields}
    here = {key: value for key, value in os.environ.items() if value}
    others = {variable for used in SECRETS.values() for variable in used} - {*SECRETS[name]}
    found = settings | here | dict.fromkeys(others, "") | {"ENV_FILE": ""}
    return {key: value for key, value in found.items() if value is not None}


def watch(children: dict[str, Child]) -> None:
    """Wait for a signal, or for a process that ends by itself: the rest is of no use then."""
    while not stopping.wait(0.2):
        for name, child in children.items():
            if child.poll() is not None:
                print(f"{name} ended with {child.returncode}: stopping", file=sys.stderr)
                return


def stop_all(children: list[Child]) -> None:
    """All at once, for each may take its grace."""
    with ThreadPoolExecutor(len(children) or 1) as pool:
        list(pool.map(stop, children))


def request_stop(number: int, frame: FrameType | None) -> None:
    stopping.set()  # only this: a second Ctrl-C must not interrupt the end


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)
    started: list[Child] = []
    children: dict[str, Child] = {}
    configure_logging()
    try:
        for variable in servers.BROKERS:
            if not is_set(variable):
                started.append(servers.start(variable, DATA))
        make_key()
        migrate = [sys.executable, "-m", "app.migrate"]
        subprocess.run(migrate, env=environment_of("migrate"), check=True)
        print(f"API: http://127.0.0.1:{PORT}/docs   Ctrl-C ends everything", flush=True)
        for name in COMMANDS:
            children[name] = spawn(command_of(name), env=environment_of(name))
        watch(children)
    finally:
        stop_all(list(children.values()))
        stop_all(started)
    return 0 if stopping.is_set() else 1


if __name__ == "__main__":
    raise SystemExit(main())
