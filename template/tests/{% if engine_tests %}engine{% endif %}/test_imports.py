"""Importing the app opens no connection, and loads no module that the process doesn't need."""

from __future__ import annotations

import re
import subprocess
import sys

from devtools.commands import COMMANDS

REFUSE_CONNECTIONS = """
import socket

def refuse(*args):
    raise AssertionError(f"a connection at import: {args}")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import app.main
"""


WORKERS = """
import sys
import app.main

found = [name for name in sys.modules if name.startswith("app.") and "worker" in name]
assert not found, found
"""


def run(code: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stderr


def test_no_network_at_import() -> None:
    assert run(REFUSE_CONNECTIONS) == (0, "")


def test_only_the_api_imports_fastapi() -> None:
    """Importing it would take a fifth of a worker's start."""
    found = {}
    for name, command in COMMANDS.items():
        module = re.findall(r"app(?:\.[a-z_]+)+", command)[0]
        code, errors = run(f"import sys, {module}; sys.exit(10 * ('fastapi' in sys.modules))")
        assert code in (0, 10), errors
        found[name] = code == 10
    assert found == {name: name == "api" for name in COMMANDS}


def test_the_api_imports_no_worker() -> None:
    """The API imports all tasks. A worker's module would make connections and a loop of its own."""
    assert run(WORKERS) == (0, "")
