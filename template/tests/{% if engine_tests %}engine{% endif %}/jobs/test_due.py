"""Which ticks of a schedule get a job, by its options and the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.jobs import Cron, Date, Interval
from app.jobs.dispatcher import BATCH
from app.jobs.due import Due, corrected, due
from app.jobs.schedules import CatchUp
from app.jobs.triggers import Trigger

SECOND, MINUTE, HOUR = (timedelta(seconds=n) for n in (1, 60, 3600))
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
NOW = NOON + 30 * SECOND
YEAR = timedelta(days=365)


def each(first: datetime, step: timedelta, count: int) -> list[datetime]:
    return [first + n * step for n in range(count)]


@pytest.mark.parametrize(
    ("trigger", "first", "grace", "catch_up", "expected"),
    [
        pytest.param(
            Interval(seconds=1),
            NOW - 4 * SECOND,
            MINUTE,
            "latest",
            Due(each(NOW - 4 * SECOND, SECOND, 5), NOW + SECOND),
            id="on time is each",
        ),
        pytest.param(
            Interval(seconds=1),
            NOW - 4 * SECOND,
            timedelta(0),
            "latest",
            Due(each(NOW - 4 * SECOND, SECOND, 5), NOW + SECOND),
            id="on time needs no grace",
        ),
        pytest.param(
            Interval(minutes=1),
            NOON - 5 * MINUTE,
            HOUR,
            "latest",
            Due([NOON], NOON + MINUTE),
            id="late is the latest",
        ),
        pytest.param(
            Interval(minutes=1),
            NOON - 5 * MINUTE,
            HOUR,
            "each",
            Due(each(NOON - 5 * MINUTE, MINUTE, 6), NOON + MINUTE),
            id="late is each",
        ),
        pytest.param(
            Interval(seconds=1),
            NOON,
            HOUR,
            "latest",
            Due(each(NOW - 6 * SECOND, SECOND, 7), NOW + SECOND),
            id="the latest of the late, and those on time",
        ),
        pytest.param(
            Interval(hours=1),
            NOON - 24 * HOUR,
            5 * MINUTE,
            "latest",
            Due([NOON], NOON + HOUR, NOON - 24 * HOUR, NOW - 5 * MINUTE),
            id="outside the grace is a missed span",
        ),
        pytest.param(
            Interval(seconds=1),
            NOW - YEAR,
            YEAR,
            "latest",
            Due(each(NOW - 6 * SECOND, SECOND, 7), NOW + SECOND),
            id="a year of seconds",
        ),
        pytest.param(
            Interval(seconds=1),
            NOON - HOUR,
            2 * HOUR,
            "each",
            Due(each(NOON - HOUR, SECOND, BATCH), NOON - HOUR + BATCH * SECOND),
            id="what is over the limit stays due",
        ),
        pytest.param(
            Date(NOON - HOUR),
            NOON - HOUR,
            2 * HOUR,
            "latest",
            Due([NOON - HOUR], None),
            id="a late date",
        ),
        pytest.param(
            Date(NOON - HOUR),
            NOON - HOUR,
            MINUTE,
            "latest",
            Due([], None, NOON - HOUR, NOW - MINUTE),
            id="a missed date",
        ),
    ],
)
def test_which_ticks_run(
    trigger: Trigger, first: datetime, grace: timedelta, catch_up: CatchUp, expected: Due
) -> None:
    assert due(trigger, first, NOW, grace, catch_up, BATCH) == expected


@pytest.mark.parametrize(
    ("trigger", "stored", "expected"),
    [
        pytest.param(Cron("0 13 * * *"), NOON + HOUR, None, id="right"),
        pytest.param(Cron("0 13 * * *"), NOON + 3 * HOUR, NOON + HOUR, id="too far ahead"),
        pytest.param(Cron("0 13 * * *"), NOON + 30 * MINUTE, NOON + HOUR, id="too early"),
        pytest.param(Cron("0 11 * * *"), NOON + 30 * MINUTE, None, id="else it wouldn't run"),
        pytest.param(Interval(hours=1), NOON + HOUR, None, id="interval"),
        pytest.param(Date(NOON - HOUR), NOON + HOUR, None, id="a date that is over"),
    ],
)
def test_which_next_ticks_are_corrected(
    trigger: Trigger, stored: datetime, expected: datetime | None
) -> None:
    assert corrected(trigger, stored, NOW) == expected
