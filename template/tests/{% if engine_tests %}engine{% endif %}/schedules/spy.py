"""Runs in each process of the service under test, as `app/tasks/spy.py`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from sqlalchemy import Engine, event


@event.listens_for(Engine, "after_cursor_execute")
def _spy(connection: object, cursor: object, statement: str, *rest: object) -> None:
    """Tell who submits a tick; where a test has asked for it, freeze in the middle of that."""
    if not statement.startswith("INSERT INTO jobs"):
        return
    Path("fired").write_text(str(os.getpid()))
    if Path("freeze").exists():
        Path("freeze").unlink()
        os.kill(os.getpid(), signal.SIGSTOP)
