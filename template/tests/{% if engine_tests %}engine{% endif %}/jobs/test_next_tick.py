"""Compares `next_tick` with an oracle without shortcuts, with cronsim, and with known ticks.

SPECS in the environment is how many random triggers are compared in each time zone, instead of 150.
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from app.jobs import CalendarInterval, Cron, Date, Interval
from app.jobs.triggers import Trigger, next_tick

SPECS = int(os.environ.get("SPECS", "150"))
MINUTE = timedelta(minutes=1)
CHANGES = {  # the days in 2026 on which clocks change; UTC has none, and gets any two
    "UTC": [date(2026, 3, 29), date(2026, 10, 25)],
    "Europe/Berlin": [date(2026, 3, 29), date(2026, 10, 25)],
    "America/New_York": [date(2026, 3, 8), date(2026, 11, 1)],
    "Australia/Lord_Howe": [date(2026, 4, 5), date(2026, 10, 4)],  # by half an hour
}
MONTH_ENDS = [date(2026, 2, 28), date(2026, 4, 30), date(2026, 12, 31), date(2028, 2, 29)]

Matches = Callable[[datetime], bool]


@cache
def window(zone: str, day: date) -> list[tuple[datetime, datetime]]:
    """Every minute in UTC from the day before `day` to the day after, with its local time."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=1)
    moments = [start + n * MINUTE for n in range(3 * 24 * 60)]
    return [(m, m.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)) for m in moments]


def oracle(zone: str, day: date, matches: Matches, starred: bool) -> list[datetime]:
    """Check each minute. A fixed time is due when clocks first reach it, or jump over it."""
    due, reached = [], window(zone, day)[0][1] - MINUTE
    for moment, wall in window(zone, day):
        passed = starred and matches(wall)
        while reached < wall and not starred:
            reached += MINUTE
            passed |= matches(reached)
        if passed:
            due.append(moment)
    return due


def ticks(trigger: Trigger, start: datetime) -> Iterator[datetime]:
    """Yield every tick from `start` on. `start` is included if it is a tick."""
    after = start - timedelta.resolution
    while tick := next_tick(trigger, after):
        yield (after := tick)


def ticks_around(trigger: Trigger, zone: str, day: date) -> list[datetime]:
    (start, _), (end, _) = window(zone, day)[0], window(zone, day)[-1]
    return list(takewhile(lambda tick: tick <= end, ticks(trigger, start)))


Field = tuple[str, set[int]]  # with the values that it means, so that the oracle needs no parser


def random_field(rng: random.Random, low: int, high: int, likely: Sequence[int]) -> Field:
    first, last = sorted(rng.sample(range(low, high + 1), k=2))
    step = rng.randint(1, last - first)
    stepped, few = set(range(low, high + 1, step)), set(rng.choices(likely, k=rng.randint(1, 3)))
    forms = [
        ("*", set(range(low, high + 1))),
        (f"*/{step}", stepped),
        (f"{first}-{last}", set(range(first, last + 1))),
        (f"{first}-{last}/{step}", set(range(first, last + 1, step))),
        (f"*/{step},{first}", {*stepped, first}),
        (f"{first},*/{step}", {*stepped, first}),
    ]
    return rng.choice([*forms, *[(",".join(map(str, few)), few)] * 4])


def random_cron(rng: random.Random) -> tuple[str, Matches, bool]:
    every: Field = ("*", set(range(60)))
    minute, minutes = random_field(rng, 0, 59, range(60))
    hour, hours = random_field(rng, 0, 23, [0, 1, 1, 2, 2, 3])
    dom, days = rng.choice([every, random_field(rng, 1, 31, [1, 5, 8, 25, 28, 29, 30, 31])])
    month, months = rng.choice([every, every, random_field(rng, 1, 12, [2, 3, 4, 10, 11, 12])])
    dow, weekdays = rng.choice([every, random_field(rng, 0, 7, [0, 1, 6, 7])])
    if dom != "*":
        dow, weekdays = every

    def matches(wall: datetime) -> bool:
        if wall.minute not in minutes or wall.hour not in hours:
            return False
        on_weekday = wall.isoweekday() in weekdays or (wall.isoweekday() == 7 and 0 in weekdays)
        return wall.day in days and wall.month in months and on_weekday

    return f"{minute} {hour} {dom} {month} {dow}", matches, minute[0] == "*" or hour[0] == "*"


def random_crons(rng: random.Random) -> Iterator[tuple[str, Matches, bool]]:
    count = 0
    while count < SPECS:
        expression, matches, starred = random_cron(rng)
        try:
            Cron(expression)
        except ValueError as error:
            assert "never fires" in str(error)
            continue
        count += 1
        yield expression, matches, starred


def random_calendar(rng: random.Random, zone: str) -> tuple[CalendarInterval, Matches]:
    unit, n = rng.choice(["days", "weeks", "months", "years"]), rng.randint(1, 4)
    start = rng.choice([date(2024, 1, 31), date(2024, 2, 29), date(2026, 3, rng.randint(1, 31))])
    hour, minute = rng.choice([0, 1, 2, 2, 2, 3, 23]), rng.choice([0, 15, 30, 59])

    def matches(wall: datetime) -> bool:
        if wall.minute != minute or wall.hour != hour or wall.date() < start:
            return False
        if unit in ("days", "weeks"):
            return (wall.date() - start).days % (n if unit == "days" else 7 * n) == 0
        months = 12 * (wall.year - start.year) + wall.month - start.month
        return wall.day == start.day and months % (n if unit == "months" else 12 * n) == 0

    options: dict[str, Any] = {unit: n, "hour": hour, "minute": minute, "timezone": zone}
    return CalendarInterval(**options, start=start), matches


@pytest.mark.parametrize("zone", CHANGES)
def test_random_crons_equal_the_oracle(zone: str) -> None:
    rng, total = random.Random(zone), 0
    for expression, matches, starred in random_crons(rng):
        day = rng.choice([*CHANGES[zone] * 3, *MONTH_ENDS])
        expected = oracle(zone, day, matches, starred)
        assert ticks_around(Cron(expression, zone), zone, day) == expected, (expression, day)
        total += len(expected)
    assert total > SPECS


@pytest.mark.parametrize("zone", CHANGES)
def test_random_calendar_intervals_equal_the_oracle(zone: str) -> None:
    rng, total = random.Random(zone), 0
    for _ in range(SPECS // 3):
        trigger, matches = random_calendar(rng, zone)
        day = rng.choice([*CHANGES[zone] * 3, *MONTH_ENDS])
        expected = oracle(zone, day, matches, starred=False)
        assert ticks_around(trigger, zone, day) == expected, (trigger, day)
        total += len(expected)
    assert total > SPECS // 20


# cronsim is wrong where clocks change by half an hour, so Lord Howe is left out.
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_random_crons_equal_cronsim(zone: str) -> None:
    rng = random.Random(zone)
    for expression, _, _ in random_crons(rng):
        start = datetime(2026, rng.choice([1, 2, 3, 10]), rng.randint(1, 28), tzinfo=UTC)
        after = start.astimezone(ZoneInfo(zone))
        expected = [tick.astimezone(UTC) for tick in islice(CronSim(expression, after), 50)]
        found = list(islice(ticks(Cron(expression, zone), start + timedelta.resolution), 50))
        assert found == expected, (expression, start)


@pytest.mark.parametrize("after", ["2026-03-29T00:59:59.999999", "2026-03-29T00:59:00.5"])
def test_a_tick_is_later_than_a_moment_between_minutes(after: str) -> None:
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    expected = datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert next_tick(Cron("* * * * *"), moment) == expected
    assert next_tick(Cron("0 * * * *", "Europe/Berlin"), moment) == expected
    assert next_tick(Cron("30 2 * * *", "Europe/Berlin"), moment) == expected
    assert next_tick(Interval(minutes=1), moment) == expected
    assert next_tick(Cron("0 * * * *"), expected) == expected + timedelta(hours=1)


BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("trigger", "start", "expected"),
    [
        # Other schedulers skip this Monday, the day after the spring change.
        (Cron("0 0 * * mon", BERLIN), "2026-03-24", ["2026-03-29T22:00", "2026-04-05T22:00"]),
        (Cron("17 0,2,8 * * mon-fri", BERLIN), "2026-03-29T12", ["2026-03-29T22:17"]),
        (Cron("30 2 * * *", BERLIN), "2026-03-28", ["2026-03-28T01:30", "2026-03-29T01:00"]),
        (Cron("5,25,47 2 * * *", BERLIN), "2026-03-29", ["2026-03-29T01:00", "2026-03-30T00:05"]),
        (Cron("0 2,3 * * *", BERLIN), "2026-03-29", ["2026-03-29T01:00", "2026-03-30T00:00"]),
        (Cron("30 2 * * *", BERLIN), "2026-10-24T12", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        (Cron("30 2 * * *", BERLIN), "2026-10-25T00:45", ["2026-10-26T01:30"]),
        (Cron("*/30 2 * * *", BERLIN), "2026-03-29", ["2026-03-30T00:00"]),
        (
            # Both changes of clocks are between this start and these ticks, and cancel each other.
            Cron("*/30 2 25 10 *", BERLIN),
            "2026-01-01",
            ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30"],
        ),
        (Cron("*/15 * * * *", BERLIN), "2026-03-29T00:45", ["2026-03-29T00:45", "2026-03-29T01"]),
        (Cron("0 0 31 * *"), "2026-01-31T01", ["2026-03-31", "2026-05-31", "2026-07-31"]),
        (Cron("0 12 29 2 *"), "2096-03-01", ["2104-02-29T12:00"]),
        (Cron("* * 29 2 *", BERLIN), "2024-03-01", ["2028-02-28T23:00"]),
        (Cron("0 9 * * 1,SUN"), "2026-03-24", ["2026-03-29T09"]),
        (Cron("0 9 * * sat-sun"), "2026-03-29T08", ["2026-03-29T09", "2026-04-04T09"]),
        (Cron("0 9 1 jan,Dec *"), "2026-03-23", ["2026-12-01T09", "2027-01-01T09"]),
        # Samoa skipped a whole day.
        (Cron("0 9 30 12 *", "Pacific/Apia"), "2011-12-29", ["2011-12-30T10"]),
        (Interval(hours=1), "2026-03-29T00:30", ["2026-03-29T01", "2026-03-29T02"]),
        (Interval(seconds=7), "1970-01-01T00:00:08", ["1970-01-01T00:00:14"]),
        (Interval(days=1, hours=12), "1969-12-30", ["1969-12-30T12", "1970-01-01"]),
        (
            CalendarInterval(days=1, hour=2, minute=30, timezone=BERLIN),
            "2026-03-28",
            ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"],
        ),
        (
            CalendarInterval(months=1, start=date(2026, 1, 31)),
            "2025-06-01",
            ["2026-01-31", "2026-03-31", "2026-05-31", "2026-07-31", "2026-08-31"],
        ),
        (CalendarInterval(years=1, start=date(2024, 2, 29)), "2024-03-01", ["2028-02-29"]),
        (CalendarInterval(weeks=1, hour=9), "2026-03-24", ["2026-03-30T09", "2026-04-06T09"]),
        (
            CalendarInterval(days=2, hour=9, start=date(2026, 1, 2)),
            "2025-12-01",
            ["2026-01-02T09", "2026-01-04T09"],
        ),
        (Date(datetime(2026, 3, 29, 12, tzinfo=ZoneInfo(BERLIN))), "2026-03-01", ["2026-03-29T10"]),
    ],
    ids=str,
)
def test_known_ticks_are_found(trigger: Trigger, start: str, expected: list[str]) -> None:
    """The expected ticks are in UTC. The first may be `start` itself."""
    moments = [datetime.fromisoformat(text).isoformat() + "+00:00" for text in expected]
    begin = datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert [tick.isoformat() for tick in islice(ticks(trigger, begin), len(moments))] == moments


def test_a_date_is_over_once_it_has_come() -> None:
    at = datetime(2026, 3, 29, 12, tzinfo=UTC)
    assert next_tick(Date(at), at) is None


def test_the_moment_asked_about_needs_a_time_zone() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        next_tick(Interval(hours=1), datetime(2026, 3, 29))  # noqa: DTZ001 - refused for that
