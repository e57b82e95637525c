"""Sends what the pool's processes count through a pipe to the worker's main process.

Nothing is lost when a process of the pool ends. What doesn't fit into the pipe isn't counted, so
that no job waits for a reader.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from functools import partial
from typing import Any

from app.core import metrics
from app.jobs.backends import Recorder, record_with

_pipe: tuple[int, int] | None = None


def serve(**_: Any) -> None:
    """Serve the counts in the main process. It is called before that process forks."""
    global _pipe
    if record := metrics.serve():
        _pipe = os.pipe()
        os.set_blocking(_pipe[1], False)
        reading = (_pipe[0], record)
        threading.Thread(target=_read, args=reading, name="counts", daemon=True).start()


def _read(end: int, record: Recorder) -> None:
    with os.fdopen(end) as lines:
        for line in lines:
            name, labels, value = json.loads(line)
            record(name, tuple(labels), value)


def pass_on(**_: Any) -> None:
    """Send what this process of the pool counts."""
    if _pipe:
        metrics.leave()
        record_with(partial(_send, _pipe[1]))


def _send(end: int, name: str, labels: tuple[str, ...], value: float) -> None:
    """A line is short enough for the pipe to take it as a whole or not at all."""
    line = json.dumps([name, labels, value]) + "\n"
    with suppress(OSError):
        os.write(end, line.encode())
