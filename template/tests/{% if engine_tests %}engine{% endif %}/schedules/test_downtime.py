"""All replicas are down while ticks fall due. The tests set the times in the rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from app.jobs.triggers import EPOCH
from tests.engine.api.schedule_calls import ECHO, create
from tests.engine.schedules.clocks import Clocks, Tick
from tests.service import START_LIMIT, eventually

SECOND, MINUTE, HOUR, WEEK = (timedelta(seconds=n) for n in (1, 60, 3600, 604_800))

SINCE = {"latest": 10 * MINUTE, "each": 10 * MINUTE, "week": WEEK, "minute": MINUTE, "old": WEEK}


async def declare(three: Clocks) -> None:
    minute, second = ({"kind": "interval", "seconds": seconds} for seconds in (60, 1))
    wanted: dict[str, dict[str, Any]] = {
        "latest": {"trigger": minute, "misfire_grace": 3600},
        "each": {"trigger": minute, "misfire_grace": 3600, "catch_up": "each"},
        "old": {"trigger": minute},
        "week": {"trigger": second},
        "minute": {"trigger": second},
    }
    for schedule_id, fields in wanted.items():
        await create(three, **ECHO | {"id": schedule_id, "paused": True, **fields})


async def test_after_a_downtime_late_ticks_run_as_declared(three: Clocks) -> None:
    await declare(three)
    stopped = (await three.every_tick(1))[0].at
    three.kill_clocks()
    due = {schedule_id: floor(stopped - since, MINUTE) for schedule_id, since in SINCE.items()}
    for schedule_id, first in due.items():
        await three.set_row(schedule_id, next_tick=first, paused=False)
    await three.start_clocks(3)
    await eventually(lambda: three.ticks("minute"), START_LIMIT)
    until = (await three.every_tick(2))[0].at
    ticks = {schedule_id: await three.ticks(schedule_id) for schedule_id in SINCE}

    minutes = {name: [tick.at for tick in ticks[name] if tick.at <= until] for name in ticks}
    each = minutes["each"]
    assert each == [due["each"] + n * MINUTE for n in range(len(each))]
    assert len(each) in (10, 11, 12)
    for schedule_id in ("latest", "old"):
        # The last late tick, and another one if a minute has just begun.
        ran = minutes[schedule_id]
        assert (ran, len(ran) in (1, 2)) == (each[-len(ran) :], True)
    for schedule_id in ("latest", "each", "minute"):
        assert (await three.schedule(schedule_id))["missed_since"] is None
    for schedule_id in ("old", "week"):
        await the_span_is_recorded(three, schedule_id, due[schedule_id])
    assert abs(ticks["week"][0].submitted - ticks["minute"][0].submitted) < 5 * SECOND
    assert_one_late(ticks["week"])
    assert_one_late(ticks["minute"])


async def the_span_is_recorded(three: Clocks, schedule_id: str, first: datetime) -> None:
    shown = await three.schedule(schedule_id)
    since, until = (datetime.fromisoformat(shown[f"missed_{end}"]) for end in ("since", "until"))
    submitted = (await three.ticks(schedule_id))[0].submitted
    assert since == first
    assert timedelta(0) <= submitted - 5 * MINUTE - until < 5 * SECOND


def assert_one_late(ticks: list[Tick]) -> None:
    """One late tick ran for all that were more than 5 s late, and then each tick."""
    first = ticks[0]
    assert 5 < first.late < 30
    assert [tick.at for tick in ticks] == [first.at + n * SECOND for n in range(len(ticks))]


def floor(moment: datetime, step: timedelta) -> datetime:
    return EPOCH + (moment - EPOCH) // step * step
