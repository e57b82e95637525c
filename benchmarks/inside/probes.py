"""Tasks that only the benchmark has; copied to `app/tasks/bench.py`."""

from __future__ import annotations

import time

from app.jobs import task


@task(name="bench.noop")
async def noop() -> None:
    pass


@task(name="bench.stamp")
async def stamp(sent: float) -> float:
    """Seconds since it was submitted."""
    return time.time() - sent
