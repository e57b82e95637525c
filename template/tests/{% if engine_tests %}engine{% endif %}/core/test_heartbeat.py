"""A container is healthy while every loop of its process runs, and unhealthy once one doesn't."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from app.config import get_settings
from app.core.concurrency import forget_loops, heartbeat, stalled
from devtools.commands import COMMANDS, HOSTS
from tests.service import START_LIMIT, Service, eventually

# The API has a health check by HTTP. Only if it is a host does it touch files as well.
WATCHED = set(COMMANDS) - {"api"} | set(HOSTS.values())


def healthy(folder: Path, minutes: str = "+0.1") -> bool:
    """The check of compose.yaml, with a limit of 6 seconds, which each kind of worker keeps."""
    check = ["find", str(folder), "-type", "f", "-mmin", minutes, "-exec", "false", "{}", "+"]
    return subprocess.run(check, capture_output=True).returncode == 0


async def all_give_signs(service: Service) -> None:
    """Wait for the files of each host's two loops, of the clock, and of each other process."""

    async def found() -> bool:
        folders = {name: service.heartbeats(name) for name in WATCHED}
        signs = {name: {file.name for file in each.glob("*")} for name, each in folders.items()}
        hosts = all({"relay", "host"} <= signs[name] for name in HOSTS.values())
        return hosts and any("clock" in each for each in signs.values()) and all(signs.values())

    await eventually(found, START_LIMIT)


async def test_processes_that_turn_are_healthy_and_frozen_ones_are_not(service: Service) -> None:
    await all_give_signs(service)  # a process that freezes before its first file looks healthy
    folders = [service.heartbeats(name) for name in service.processes if name in WATCHED]
    assert folders

    async def all_are(expected: bool) -> bool:
        return all(healthy(folder) is expected for folder in folders)

    await eventually(lambda: all_are(True))
    for process in service.processes.values():
        os.kill(process.pid, signal.SIGSTOP)
    try:
        await eventually(lambda: all_are(False))
    finally:
        for process in service.processes.values():
            os.kill(process.pid, signal.SIGCONT)
    await eventually(lambda: all_are(True))


async def test_each_loop_is_watched(service: Service) -> None:
    await all_give_signs(service)


def test_one_loop_that_stands_still_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not healthy(tmp_path / "signs")  # no loop has run yet
    monkeypatch.setattr(get_settings(), "heartbeats", tmp_path / "signs")
    heartbeat("relay")
    heartbeat("clock")
    assert healthy(tmp_path / "signs")
    os.utime(tmp_path / "signs" / "clock", (0, 0))
    assert not healthy(tmp_path / "signs")
    heartbeat("clock")
    assert healthy(tmp_path / "signs")


def test_a_folder_that_cannot_be_written_ends_no_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(get_settings(), "heartbeats", tmp_path / "file" / "signs")
    heartbeat("relay")
    assert not healthy(tmp_path / "file" / "signs")


def test_a_loop_that_has_ended_does_not_count_as_one_that_stands_still() -> None:
    heartbeat("clock")
    assert 0 <= stalled()["clock"] < 60
    forget_loops()
    assert "clock" not in stalled()
