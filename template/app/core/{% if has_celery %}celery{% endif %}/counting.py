"""What a process of the pool counts goes down a pipe to the worker's main process, which serves it.

A pipe loses nothing when a process of the pool ends. What doesn't fit into it isn't counted: no job
waits for a reader.
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
    """In the main process, before it forks."""
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
    """In a process of the pool."""
    if _pipe:
        metrics.leave()
        record_with(partial(_send, _pipe[1]))


def _send(end: int, name: str, labels: tuple[str, ...], value: float) -> None:
    """A line is shorter than what a pipe takes as a whole."""
    line = json.dumps([name, labels, value]) + "\n"
    with suppress(OSError):
        os.write(end, line.encode())
