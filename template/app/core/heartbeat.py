"""Signs of life, for the health check of a process that serves no port.

Each loop that must turn keeps a file of its own young, in the folder HEARTBEATS. The check starts
no interpreter: `find /tmp/heartbeats -type f -mmin +0.5 -exec false {} +` fails when one is older
than half a minute, and when there is none.
"""

from __future__ import annotations

from contextlib import suppress

from app.config import get_settings


def heartbeat(loop: str) -> None:
    """Say that this loop turns; never raises, for what can't be said fails the check."""
    if folder := get_settings().heartbeats:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / loop).touch()
