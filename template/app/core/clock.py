"""The database's clock decides; here each process sees when it jumps.

Beside a monotonic clock, the database's goes evenly. What it says is noted with the monotonic times
before and after it was asked, so that an answer that took long is no jump.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from app.config import get_settings

log = structlog.get_logger(__name__)

# Seconds by which it may be out unnoticed: less than a lease has left when it is extended.
TOLERANCE = min(2.0, get_settings().lease / 3)
RECENT = 600  # seconds for which a jump is told of


@dataclass(frozen=True)
class Jump:
    """`seconds` are negative where the clock went back; `noticed` is monotonic."""

    seconds: float
    noticed: float

    def __str__(self) -> str:
        return f"jumped {'forward' if self.seconds > 0 else 'back'} {abs(self.seconds):.0f} s"


class DatabaseClock:
    """What this process knows of the database's clock."""

    def __init__(self) -> None:
        self._ahead: tuple[float, float] | None = None  # of the monotonic clock, at least and most
        self.jump: Jump | None = None  # the last one

    def note(self, now: datetime, asked: float) -> None:
        """The clock said `now`, some time after the monotonic time `asked`."""
        answered = time.monotonic()
        least, most = now.timestamp() - answered, now.timestamp() - asked
        if self._ahead:
            by = max(0.0, least - self._ahead[1]) + min(0.0, most - self._ahead[0])
            if abs(by) > TOLERANCE:
                self.jump = Jump(by, answered)
                log.warning("the database's clock has jumped", seconds=round(by))
        self._ahead = least, most

    def latest(self) -> datetime:
        """The latest that it can be, unless it has just jumped forward. Note it first."""
        if self._ahead is None:
            raise RuntimeError("the database's clock has not been asked yet")
        seconds = time.monotonic() + self._ahead[1] + TOLERANCE
        return datetime.fromtimestamp(seconds, UTC)

    def recent_jump(self) -> Jump | None:
        if self.jump and time.monotonic() - self.jump.noticed < RECENT:
            return self.jump
        return None


database_clock = DatabaseClock()
