"""Ports of loopback, for processes that the tests start."""

import random
import socket
from contextlib import suppress

# Those that services choose from. They reserve theirs in the same way (`devtools/processes.py`).
PORTS = range(10_000, 32_000)
_reserved: list[socket.socket] = []


def free_port() -> int:
    """A port that no other process gets until this one ends, though its server binds it later."""
    for port in random.sample(PORTS, 100):
        held = socket.socket(type=socket.SOCK_DGRAM)
        with suppress(OSError), socket.socket() as probe:
            held.bind(("127.0.0.1", port))
            probe.bind(("127.0.0.1", port))
            _reserved.append(held)
            return port
        held.close()
    raise RuntimeError("no port is free")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
