"""Importing the app touches no network: it boots, and is tested, with everything down."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import socket

def refuse(*args):
    raise AssertionError(f"a connection at import: {args}")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import app.main
"""


def test_no_network_at_import() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
