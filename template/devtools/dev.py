"""`poe dev` starts everything on this machine. One Ctrl-C ends it.

The supervisor does the work, in a session of its own. When this process closes a pipe, or ends, the
supervisor stops all that it started. So Ctrl-C, SIGTERM, a closed terminal and even SIGKILL leave
nothing behind.
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
ADDRESSES = Path(".dev", "env")  # of its servers; app/config.py reads them


def main() -> int:
    above = launchers()
    reader, writer = os.pipe()
    supervisor = spawn([sys.executable, "-m", "devtools.supervisor", *sys.argv[1:]], stdin=reader)
    os.close(reader)

    def let_go(*_: object) -> None:
        with suppress(OSError):  # at a second Ctrl-C it is closed
            os.close(writer)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` sets it
            signal.signal(number, let_go)
    code = wait_for(supervisor, let_go, above)
    if code < 0:
        print("the supervisor was killed, and now all that it started", file=sys.stderr)
        for leader in registered(REGISTER).values():
            kill_group(leader)
        ADDRESSES.unlink(missing_ok=True)
    return abs(code)


def wait_for(
    supervisor: subprocess.Popen[bytes], let_go: Callable[[], None], above: list[int]
) -> int:
    """Wait for the supervisor. Returns its exit code. It must also end if a launcher is killed."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return supervisor.wait(0.5)
        if any(not is_there(pid) for pid in above):
            let_go()


def launchers() -> list[int]:
    """The `uv run` processes that wait for this one. If one is killed, it passes no signal on."""
    found, pid = list[int](), os.getppid()
    with suppress(OSError, subprocess.CalledProcessError, ValueError):
        while True:
            ask = ["ps", "-o", "ppid=,comm=", "-p", str(pid)]
            parent, name = subprocess.check_output(ask, text=True).split(maxsplit=1)
            if Path(name.strip()).name != "uv":
                break
            found.append(pid)
            pid = int(parent)
    return found


def is_there(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
