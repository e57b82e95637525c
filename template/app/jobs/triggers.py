"""The four kinds of trigger, and `next_tick`, which alone decides when a schedule is due."""

from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, Strict

from app.jobs.cron import WallTimes, parse

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CENTURY = timedelta(days=36525)


def _need_kind(schema: dict[str, Any]) -> None:
    schema.setdefault("required", []).append("kind")


def _from_iso(kind: type[date]) -> BeforeValidator:
    """JSON has no dates: they are strings there."""
    return BeforeValidator(lambda each: kind.fromisoformat(each) if isinstance(each, str) else each)


# They are strict: in JSON, `true` isn't a number of days, and 1 isn't a date.
Number = Annotated[int, Strict()]
Text = Annotated[str, Strict()]
Day = Annotated[date, Strict(), _from_iso(date)]
Moment = Annotated[datetime, Strict(), _from_iso(datetime), PlainSerializer(datetime.isoformat)]
IN_JSON = ConfigDict(extra="forbid", json_schema_extra=_need_kind)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Due each time that so many seconds have passed, counted from 1970-01-01 00:00 UTC."""

    __pydantic_config__ = IN_JSON

    weeks: InitVar[Number] = 0
    days: InitVar[Number] = 0
    hours: InitVar[Number] = 0
    minutes: InitVar[Number] = 0
    seconds: Number = 0
    kind: Literal["interval"] = field(default="interval", repr=False)

    def __post_init__(self, weeks: int, days: int, hours: int, minutes: int) -> None:
        total = self.seconds + 60 * (minutes + 60 * (hours + 24 * (days + 7 * weeks)))
        whole = total % 1 == 0 and 1 <= total <= CENTURY.total_seconds()
        require(whole, "an interval is a whole number of seconds, from 1 to a century")
        object.__setattr__(self, "seconds", int(total))


@dataclass(frozen=True)
class Cron:
    """Five fields: minute, hour, day of month, month, day of week (Sunday is 0 or 7).

    It refuses what other programs read differently: a day of month together with a day of week,
    `5/15`, a step longer than its range.
    """

    __pydantic_config__ = IN_JSON

    expression: Text
    timezone: Text = "UTC"
    kind: Literal["cron"] = field(default="cron", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        parse(self.expression)
        _zone(self.timezone)


@dataclass(frozen=True)
class CalendarInterval:
    """Due every so many days and weeks, or months and years, at a local time of day.

    They count from `start`. Its day of the month is kept: a month that lacks it is skipped. The
    default is a Monday and a 1 January.
    """

    __pydantic_config__ = IN_JSON

    days: Number = 0
    weeks: Number = 0
    months: Number = 0
    years: Number = 0
    hour: Number = 0
    minute: Number = 0
    timezone: Text = "UTC"
    start: Day = date(2001, 1, 1)
    kind: Literal["calendar"] = field(default="calendar", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        steps = (self.days, self.weeks, self.months, self.years)
        one_kind = any(steps[:2]) != any(steps[2:]) and min(steps) >= 0
        require(one_kind, "a calendar interval has days and weeks, or months and years")
        short = self.days + 7 * self.weeks <= CENTURY.days and self.months + 12 * self.years <= 1200
        require(short, "a calendar interval is at most a century")
        require(0 <= self.hour < 24 and 0 <= self.minute < 60, "hour is 0-23, minute 0-59")
        require(type(self.start) is date, "start is a date without a time")
        _check_year(self.start)
        _zone(self.timezone)

    def falls_on(self, day: date) -> bool:
        """Whether `day` is one of its days."""
        if day < self.start:
            return False
        if step := self.days + 7 * self.weeks:
            return (day - self.start).days % step == 0
        months = 12 * (day.year - self.start.year) + day.month - self.start.month
        return day.day == self.start.day and months % (self.months + 12 * self.years) == 0


@dataclass(frozen=True)
class Date:
    """Due once, at a datetime that has a time zone."""

    __pydantic_config__ = IN_JSON

    at: Moment
    kind: Literal["date"] = field(default="date", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        _check_aware(self.at)
        _check_year(self.at)


Trigger = Annotated[Interval | Cron | CalendarInterval | Date, Field(discriminator="kind")]


def next_tick(trigger: Trigger, after: datetime) -> datetime | None:
    """Return the first tick strictly later than `after`, in UTC; None when it's over.

    Raises ValueError when `after` is naive.
    """
    _check_aware(after)
    after = after.astimezone(UTC)
    match trigger:
        case Interval(seconds=seconds):
            every = timedelta(seconds=seconds)
            return EPOCH + ((after - EPOCH) // every + 1) * every
        case Date(at):
            return at.astimezone(UTC) if at > after else None
        case Cron(expression, timezone):
            return parse(expression).next(after, _zone(timezone))
        case CalendarInterval(timezone=timezone, start=start):
            walls = WallTimes([time(trigger.hour, trigger.minute)], trigger.falls_on)
            eve = datetime.combine(start, time.min, UTC) - timedelta(days=2)
            return walls.next(max(after, eve), _zone(timezone))


def require(ok: bool, reason: str) -> None:
    if not ok:
        raise ValueError(reason)


def _check_aware(moment: datetime) -> None:
    require(moment.utcoffset() is not None, f"{moment.isoformat()} has no time zone")


def _check_year(day: date) -> None:
    # These years leave room to convert the time zone and to find a next tick.
    require(1970 <= day.year < 3000, f"year {day.year} is not in 1970-2999")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: "Europe" is a directory
        raise ValueError(f"unknown time zone {name!r}") from None
