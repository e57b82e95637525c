"""Reads cron expressions, and finds the next moment that matches on clocks that change.

The rules are those of Debian's cron(8). When spring skips matching times, the end of the gap counts
once for all of them. When autumn repeats a time, only the first one counts. If the minute or hour
field starts with `*`, each real minute that matches counts instead.
"""

import re
from bisect import bisect_left
from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo


class WallTimes(NamedTuple):
    """The days and times of day at which something is due, in local time."""

    times: list[time]
    falls_on: Callable[[date], bool]
    starred: bool = False

    def next(self, after: datetime, zone: ZoneInfo) -> datetime:
        """Return the first moment later than `after` at which it is due; both in UTC."""
        return self._next_starred(after, zone) if self.starred else self._next_fixed(after, zone)

    def _next_fixed(self, after: datetime, zone: ZoneInfo) -> datetime:
        wall = self._first(_wall(after, zone))
        while (moment := _first_reached(wall, zone)) <= after:
            wall = self._first(wall + timedelta(minutes=1))
        return moment

    def _next_starred(self, after: datetime, zone: ZoneInfo) -> datetime:
        moment = after.replace(microsecond=0) + timedelta(seconds=1)
        while wait := self._first(wall := _wall(moment, zone)) - wall:
            # A week at most: a longer time may have a change of the clock and its reversal.
            moment = _clock_change(moment, moment + min(wait, timedelta(weeks=1)), zone)
        return moment

    def _first(self, wall: datetime) -> datetime:
        """Return the first wall time that isn't before `wall`."""
        day, earliest = wall.date(), wall.time()
        while earliest > self.times[-1] or not self.falls_on(day):
            day, earliest = day + timedelta(days=1), time.min
        return datetime.combine(day, self.times[bisect_left(self.times, earliest)])


def _wall(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


def _first_reached(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return when clocks in `zone` first show `wall`, or a later time if they skip it."""
    moment = wall.replace(tzinfo=zone).astimezone(UTC)
    skipped = _wall(moment, zone) - wall
    return _clock_change(moment - skipped, moment, zone)


def _clock_change(start: datetime, end: datetime, zone: ZoneInfo) -> datetime:
    """Return the first second before `end` with another UTC offset than `start`, else `end`."""
    offset = start.astimezone(zone).utcoffset()

    def changed(seconds: int) -> bool:
        return (start + timedelta(seconds=seconds)).astimezone(zone).utcoffset() != offset

    seconds = range(int((end - start).total_seconds()))
    return start + timedelta(seconds=bisect_left(seconds, True, key=changed))


MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
FIELDS: list[tuple[str, int, int, list[str]]] = [
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of month", 1, 31, []),
    ("month", 1, 12, MONTHS),
    ("day of week", 0, 7, WEEKDAYS),
]
ITEM = re.compile(r"(?:\*|([0-9]{1,4})-([0-9]{1,4}))(?:/([0-9]{1,4}))?|([0-9]{1,4})")


@lru_cache(maxsize=256)
def parse(expression: str) -> WallTimes:
    """Read five cron fields; raises ValueError with the reason."""
    texts = expression.split()
    if len(texts) != len(FIELDS):
        raise ValueError(f"{expression!r}: a cron expression has five fields, not {len(texts)}")
    minutes, hours, days, months, weekdays = (
        {value for item in text.split(",") for value in _range(item, *field)}
        for text, field in zip(texts, FIELDS, strict=True)
    )
    if "*" not in (texts[2], texts[4]):
        raise ValueError("day of month or day of week must be *: programs read both differently")
    if min(days) > max(monthrange(2000, month)[1] for month in months):
        raise ValueError(f"{expression!r} never fires: none of its months has that day")

    def falls_on(day: date) -> bool:
        on_weekday = day.isoweekday() in weekdays or (day.isoweekday() == 7 and 0 in weekdays)
        return day.month in months and day.day in days and on_weekday

    times = [time(hour, minute) for hour in sorted(hours) for minute in sorted(minutes)]
    return WallTimes(times, falls_on, starred="*" in (texts[0][0], texts[1][0]))


def _range(item: str, name: str, low: int, high: int, names: list[str]) -> range:
    numbers = {text: str(value) for value, text in enumerate(names, low)}
    match = ITEM.fullmatch(re.sub("[a-z]+", lambda m: numbers.get(m[0], m[0]), item.lower()))
    if match is None:
        raise ValueError(f"{name}: {item!r} is not *, a, a-b, */n or a-b/n")
    first, last = int(match[1] or match[4] or low), int(match[2] or match[4] or high)
    if names is WEEKDAYS and last == 0 < first:  # sat-sun
        last = 7
    if not (low <= first and last <= high):
        raise ValueError(f"{name}: {item!r} is not within {low}-{high}")
    if first > last:
        raise ValueError(f"{name}: {item!r} runs backwards")
    step = int(match[3] or 1)
    if not 1 <= step <= max(1, last - first):
        raise ValueError(f"{name}: the step of {item!r} is not within 1-{last - first}")
    return range(first, last + 1, step)
