"""`poe dev`: everything on this machine from one command, ended by one Ctrl-C.

The supervisor does the work, in a session of its own. It stops all that it started when this
process lets go of a pipe, however that comes: Ctrl-C, SIGTERM, a closed terminal, SIGKILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from devtools.processes import kill_group, registered, spawn

REGISTER = Path(".dev", "processes")


def main() -> int:
    reader, writer = os.pipe()
    supervisor = spawn([sys.executable, "-m", "devtools.supervisor", *sys.argv[1:]], stdin=reader)
    os.close(reader)

    def let_go(*_: object) -> None:
        with suppress(OSError):  # at a second Ctrl-C it is closed
            os.close(writer)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` wants it so
            signal.signal(number, let_go)
    code = wait_for(supervisor, let_go)
    if code < 0:
        print("the supervisor was killed, and now all that it started", file=sys.stderr)
        for leader in registered(REGISTER).values():
            kill_group(leader)
    return abs(code)


def wait_for(supervisor: subprocess.Popen[bytes], let_go: Callable[[], None]) -> int:
    """Its exit code. When `uv run` was killed, which would pass a signal on, it is told to end."""
    parent = os.getppid() if "UV_RUN_RECURSION_DEPTH" in os.environ else None
    while True:
        with suppress(subprocess.TimeoutExpired):
            return supervisor.wait(0.5)
        if parent not in (None, os.getppid()):
            let_go()


if __name__ == "__main__":
    raise SystemExit(main())
