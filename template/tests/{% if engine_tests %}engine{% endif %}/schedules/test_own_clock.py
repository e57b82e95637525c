"""The clock of another machine than the database's is set an hour back, and forward again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.delivery.faked_time import faked_time
from tests.engine.schedules.clocks import EVERY_SECOND, Clocks, empty_database

# Seconds. The library makes processes slow.
LEASE = "15"


@pytest.mark.postgresql  # SQLite's clock is the machine's
async def test_a_machine_whose_own_clock_jumps_goes_on(tmp_path: Path) -> None:
    with faked_time() as time:
        url = empty_database(tmp_path)
        env = {"DATABASE_URL": url, "LEASE": LEASE, **time.env}
        clocks = Clocks(tmp_path / "clocks", **env).declare(EVERY_SECOND)
        await clocks.migrate()
        try:
            await clocks.start_clocks(1)
            first = (await clocks.every_tick(2))[0].at
            for ahead in (-3600, 0):
                time.shift(ahead)
                last = (await clocks.every_tick(3))[-1].at
            await clocks.ticks_between(first, last)
            await clocks.each_has_run_once()
        finally:
            await clocks.close()
