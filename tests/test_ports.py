"""Servers that run at the same time have different ports."""

import subprocess
import sys

from tests.ports import free_port
from tests.renders import ROOT


def test_a_service_gets_no_port_of_these_tests() -> None:
    mine = free_port()
    ask = f"from devtools.processes import free_port; print(free_port({mine}))"
    command = [sys.executable, "-B", "-c", ask]
    chosen = subprocess.check_output(command, cwd=ROOT / "template", text=True)
    assert int(chosen) != mine
