"""Starts child processes, and ends them by their id with all that they started."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# The file descriptors of locks. Each child inherits them: a lock holds while one of them lives.
_locks: list[int] = []

# Outgoing connections get higher ports, so that none takes a port before its server does.
PORTS = range(10_000, 32_000)
_reserved: list[socket.socket] = []  # while they are open, nobody else gets their ports


def free_port(wish: int = 0) -> int:
    """The wanted port if it is free, else any free one.

    Until this process ends, no other one chooses it: its server may start later, or stop meanwhile.
    """
    for port in filter(None, (wish, *random.sample(PORTS, 100))):
        held = socket.socket(type=socket.SOCK_DGRAM)  # of UDP: the server needs that of TCP
        with contextlib.suppress(OSError), socket.socket() as probe:
            held.bind(("127.0.0.1", port))
            probe.bind(("127.0.0.1", port))
            _reserved.append(held)
            return port
        held.close()
    raise RuntimeError("no port is free")


def listening(port: str) -> socket.socket:
    """A socket that listens on the port. Raises SystemExit if the port can't be used."""
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(("127.0.0.1", int(port)))
    except ValueError:
        sys.exit(f"PORT: must be a number, not {port!r}")
    except (OSError, OverflowError) as error:
        sys.exit(f"PORT: {port} can't be used ({error}); another one: PORT=8001 uv run poe dev")
    opened.listen()
    return opened


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    output: int | None = None,
    stdin: int = subprocess.DEVNULL,
    cwd: Path | None = None,
    user: str | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that a Ctrl-C reaches only the launcher.

    Its output goes to the file `log`, or to `output` (such as `subprocess.PIPE`).
    """
    with log.open("ab") if log else contextlib.nullcontext() as file:
        target = file or output
        return subprocess.Popen(
            command,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            user=user,
            stdin=stdin,
            stdout=target,
            stderr=subprocess.STDOUT if target else None,
            start_new_session=True,
            pass_fds=(*_locks, *pass_fds),
        )


def stop(
    process: subprocess.Popen[bytes], grace: float = 30, by: signal.Signals = signal.SIGTERM
) -> int:
    """Signal the process. Kill it after the grace, and kill what it leaves behind."""
    if process.poll() is None:
        process.send_signal(by)
    try:
        code = process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    kill_group(process.pid)
    return code


def kill_group(leader: int) -> None:
    """Kill what is left of the session that this process began."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says it of a zombie
        os.killpg(leader, signal.SIGKILL)


def lock(register: Path) -> None:
    """Let no other start happen here while this process or a child of it lives.

    Raises SystemExit, which names the processes of an earlier start. The file lists all of them.
    """
    descriptor = os.open(register, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        living = registered(register)
        named = ", ".join(f"{name} ({pid})" for name, pid in living.items())
        end = " ".join(f"-{pid}" for pid in living.values())
        sys.exit(f"an earlier start still runs: {named}\nTo end it: kill -9 -- {end}")
    os.truncate(descriptor, 0)
    _locks.append(descriptor)


def enter(register: Path, name: str, pid: int) -> None:
    with register.open("a") as file:
        file.write(f"{pid} {name}\n")


def registered(register: Path) -> dict[str, int]:
    """The processes in the file that live, or of whose session something still lives."""
    lines = [line.partition(" ") for line in register.read_text().splitlines()]
    return {name: int(pid) for pid, _, name in lines if _has_group(int(pid))}


def _has_group(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], limit: float) -> None:
    """Raises RuntimeError when the process ends, TimeoutError when it isn't ready in time."""
    deadline = time.monotonic() + limit
    while not ready():
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{process.args!r} is not ready after {limit:g} s")
        time.sleep(0.02)


def ready_server(
    process: subprocess.Popen[bytes], ready: Callable[[], bool], limit: float, log: Path
) -> None:
    """Like `wait_until`, but it stops a process that doesn't get ready. Its log says why."""
    try:
        wait_until(ready, process, limit)
    except (RuntimeError, TimeoutError) as error:
        stop(process, grace=1)
        last = "\n".join(log.read_text("utf-8", "replace").splitlines()[-5:])
        raise RuntimeError(f"{error}; the end of {log}:\n{last}") from None
    except BaseException:
        stop(process, grace=1)
        raise


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
