"""Lets the kernel drop packets, so that TCP behaves as it does on a network that loses them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

PORTS = 15  # the most that one rule can name


def _iptables(*arguments: str) -> None:
    subprocess.run(["iptables", *arguments], check=True, capture_output=True)


def _skip_where_none_may() -> None:
    if os.getuid() != 0 or not shutil.which("iptables"):
        pytest.skip("only root may drop packets, with iptables")
    try:
        _iptables("-S", "INPUT")
    except subprocess.CalledProcessError as refused:
        pytest.skip(f"this kernel drops no packets: {refused.stderr.decode()}")


def _rules(server: int, clients: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """The rules that drop both directions of each connection."""
    tcp = ("INPUT", "-i", "lo", "-p", "tcp")
    for first in range(0, len(clients), PORTS):
        ports = ",".join(map(str, clients[first : first + PORTS]))
        yield (*tcp, "--dport", str(server), "-m", "multiport", "--sports", ports, "-j", "DROP")
        yield (*tcp, "--sport", str(server), "-m", "multiport", "--dports", ports, "-j", "DROP")


@contextmanager
def dropping(server: int, clients: Sequence[int]) -> Iterator[None]:
    """Drop packets between these ports of this machine. Without that right the test is skipped."""
    _skip_where_none_may()
    with ExitStack() as rules:
        for rule in _rules(server, clients):
            _iptables("-I", *rule)
            rules.callback(_iptables, "-D", *rule)
        yield
