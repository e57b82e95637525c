"""Makes watches whose steps tests call one by one."""

from __future__ import annotations

from math import inf

from app.jobs.watch import _Watch


def judging_watch() -> _Watch:
    """A watch that judges leases at each step, even if this process has just stood still."""
    watch = _Watch()
    watch._interval = inf
    return watch
