"""Each process of the service under test imports it as `app/tasks/spy.py`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from sqlalchemy import Engine, event


@event.listens_for(Engine, "after_cursor_execute")
def _spy(connection: object, cursor: object, statement: str, *rest: object) -> None:
    """Note which process submits a tick. If a test asks for it, freeze before the commit."""
    if not statement.startswith("INSERT INTO jobs"):
        return
    Path("fired").write_text(str(os.getpid()))
    if Path("freeze").exists():
        Path("freeze").unlink()
        os.kill(os.getpid(), signal.SIGSTOP)
