"""Watching processes: their CPU, their connections, and waiting for what they do."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

CPU_OF_PROCESS = 2  # CPUCLOCK_SCHED: all its threads, in nanoseconds; psutil counts hundredths


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def cpu(process: psutil.Process) -> float:
    """Seconds that it and its children have used."""
    return sum(time.clock_gettime(~each.pid << 3 | CPU_OF_PROCESS) for each in family(process))


def connections(process: psutil.Process, port: int) -> int:
    """How many it and its children hold to a server on this machine."""
    held = [each for member in family(process) for each in member.net_connections("tcp")]
    return sum(bool(each.raddr) and each.raddr.port == port for each in held)


def wait_for(
    what: str,
    reached: Callable[[], bool],
    process: psutil.Process | None = None,
    limit: float = 90,
) -> None:
    """Raises TimeoutError after the limit, RuntimeError when the process ends before."""
    deadline = time.monotonic() + limit
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not {what} after {limit:g} s")
        if process and process.status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError(f"not {what}, and the process has ended")
        time.sleep(0.02)
