"""A small file system of its own for a server's data, so that a test can fill a disk."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SIZE = "96m"  # a new PostgreSQL has 40 MB
BLOCK = bytes(4096)


class SmallDisk:
    """It is the folder `data` of `folder`. All else in that folder is on the machine's own disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"

    def fill(self) -> None:
        """Fill it to the last block."""
        with suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(BLOCK)

    def free(self) -> None:
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.data / "filler"


@contextmanager
def small_disk() -> Iterator[SmallDisk]:
    """Mount one that PostgreSQL's user can write. Without that right the test is skipped."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a file system")
    folder = Path(tempfile.mkdtemp(prefix="small-disk-"))
    folder.chmod(0o755)  # PostgreSQL runs as another user
    disk = SmallDisk(folder)
    disk.data.mkdir()
    try:
        _mount(disk.data)
        yield disk
        subprocess.run(["umount", "--lazy", str(disk.data)], check=True)
    finally:
        shutil.rmtree(folder)


def _mount(place: Path) -> None:
    options = f"size={SIZE},mode=700,uid={pwd.getpwnam('nobody').pw_uid}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode:
        pytest.skip(f"this machine mounts no file system: {done.stderr.strip()}")
