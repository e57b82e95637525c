"""libfaketime, which shifts the wall clock of a process, and not its monotonic clock."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engine.delivery.tools import missing

FOLDERS = ("/usr/lib", "/usr/local/lib", "/opt/homebrew/lib")


class FakedTime:
    """The wall clock of the processes that have `env`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "time"
        self.env = {
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Otherwise each wait for Python's lock is a loop, which takes half of the CPU.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }
        self.shift(0)

    def shift(self, seconds: int) -> None:
        """Set the wall clock so many seconds ahead of the real one, from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self._file)


@contextmanager
def faked_time() -> Iterator[FakedTime]:
    """Without libfaketime the test is skipped, or fails in CI."""
    with tempfile.TemporaryDirectory(prefix="faked-time-") as folder:
        Path(folder).chmod(0o755)  # a server that runs as another user reads it, too
        yield FakedTime(Path(folder))


def library() -> str:
    for folder in FOLDERS:
        for found in Path(folder).glob("**/faketime/libfaketimeMT.so.1"):
            return str(found)
    missing("no libfaketime here: install it (Debian's package is called faketime)")
