"""Watches processes: their CPU time, their connections, and what they have done."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

CPU_OF_PROCESS = 2  # CPUCLOCK_SCHED: all threads, in nanoseconds; psutil has hundredths


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def cpu(process: psutil.Process) -> float:
    """The seconds of CPU time that the process and its children have used."""
    return sum(time.clock_gettime(~each.pid << 3 | CPU_OF_PROCESS) for each in family(process))


def connections(process: psutil.Process, port: int) -> int:
    """How many connections the process and its children hold to the server at this port."""
    held = [each for member in family(process) for each in member.net_connections("tcp")]
    return sum(bool(each.raddr) and each.raddr.port == port for each in held)


def wait_for(
    what: str,
    reached: Callable[[], bool],
    process: psutil.Process | None = None,
    limit: float = 90,
) -> None:
    """Raises TimeoutError after the limit (seconds), or RuntimeError if the process has ended."""
    deadline = time.monotonic() + limit
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not {what} after {limit:g} s")
        if process and process.status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError(f"not {what}, and the process has ended")
        time.sleep(0.02)
