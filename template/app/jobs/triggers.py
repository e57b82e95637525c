"""When a schedule is due: four kinds of trigger, and `next_tick`, which alone decides."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from inspect import signature
from typing import Any
from zoneinfo import ZoneInfo

from app.jobs.cron import WallTimes, parse

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CENTURY = timedelta(days=36525)


@dataclass(frozen=True, init=False)
class Interval:
    """Every so many whole seconds of elapsed time, counted from 1970-01-01 00:00 UTC."""

    seconds: int

    def __init__(
        self, *, weeks: int = 0, days: int = 0, hours: int = 0, minutes: int = 0, seconds: int = 0
    ) -> None:
        total = seconds + 60 * (minutes + 60 * (hours + 24 * (days + 7 * weeks)))
        whole = total % 1 == 0 and 1 <= total <= CENTURY.total_seconds()
        require(whole, "an interval is a whole number of seconds, from 1 to a century")
        object.__setattr__(self, "seconds", int(total))


@dataclass(frozen=True)
class Cron:
    """Five fields: minute, hour, day of month, month, day of week (Sunday is 0 or 7).

    What other parsers read differently is refused: a day of month together with a day of week,
    `5/15`, a step longer than its range.
    """

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        parse(self.expression)
        _zone(self.timezone)


@dataclass(frozen=True)
class CalendarInterval:
    """Every so many days and weeks, or months and years, at a local time of day.

    Counted from `start`, whose day of month is kept: months that lack it are skipped. The default
    is a Monday and a 1 January.
    """

    days: int = 0
    weeks: int = 0
    months: int = 0
    years: int = 0
    hour: int = 0
    minute: int = 0
    timezone: str = "UTC"
    start: date = date(2001, 1, 1)

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

    def names(self, day: date) -> bool:
        """Whether `day` is one of its days."""
        if day < self.start:
            return False
        if step := self.days + 7 * self.weeks:
            return (day - self.start).days % step == 0
        months = 12 * (day.year - self.start.year) + day.month - self.start.month
        return day.day == self.start.day and months % (self.months + 12 * self.years) == 0


@dataclass(frozen=True)
class Date:
    """Once, at a datetime that carries its time zone."""

    at: datetime

    def __post_init__(self) -> None:
        _check_aware(self.at)
        _check_year(self.at)


Trigger = Interval | Cron | CalendarInterval | Date


def next_tick(trigger: Trigger, after: datetime) -> datetime | None:
    """Return the first tick strictly later than `after`, in UTC; None when it's over.

    Raises ValueError when `after` is naive.
    """
    _check_aware(after)
    after = after.astimezone(UTC)
    match trigger:
        case Interval(seconds):
            every = timedelta(seconds=seconds)
            return EPOCH + ((after - EPOCH) // every + 1) * every
        case Date(at):
            return at.astimezone(UTC) if at > after else None
        case Cron(expression, timezone):
            return parse(expression).next(after, _zone(timezone))
        case CalendarInterval(timezone=timezone, start=start):
            walls = WallTimes([time(trigger.hour, trigger.minute)], trigger.names)
            eve = datetime.combine(start, time.min, UTC) - timedelta(days=2)
            return walls.next(max(after, eve), _zone(timezone))


KINDS: dict[str, Any] = {
    "interval": Interval,
    "cron": Cron,
    "calendar": CalendarInterval,
    "date": Date,
}


def dump(trigger: Trigger) -> dict[str, Any]:
    """Return the trigger as JSON types, for `load`."""
    kind = next(name for name, cls in KINDS.items() if isinstance(trigger, cls))
    fields = vars(trigger).items()
    return {"kind": kind} | {k: v.isoformat() if isinstance(v, date) else v for k, v in fields}


def load(data: dict[str, Any]) -> Trigger:
    """Return the trigger that `dump` described; raises ValueError with the reason."""
    require(isinstance(data, dict), "a trigger is an object")
    fields = dict(data)
    kind = fields.pop("kind", None)
    require(isinstance(kind, str) and kind in KINDS, f"kind is one of {', '.join(KINDS)}")
    parameters = signature(KINDS[kind]).parameters
    for name, value in fields.items():
        require(name in parameters, f"{kind} has no field {name!r}")
        fields[name] = _decode(name, value, parameters[name].annotation)
    for name, parameter in parameters.items():
        require(name in fields or parameter.default is not parameter.empty, f"{name} is missing")
    trigger: Trigger = KINDS[kind](**fields)
    return trigger


def _decode(name: str, value: object, wanted: type) -> object:
    if isinstance(value, str) and issubclass(wanted, date):
        return wanted.fromisoformat(value)
    # Not isinstance: True is no number of days.
    require(type(value) is wanted, f"{name} must be {wanted.__name__}")
    return value


def require(ok: bool, reason: str) -> None:
    if not ok:
        raise ValueError(reason)


def _check_aware(moment: datetime) -> None:
    require(moment.utcoffset() is not None, f"{moment.isoformat()} has no time zone")


def _check_year(day: date) -> None:
    # Leaves datetime room to change the time zone and to count on.
    require(1970 <= day.year < 3000, f"year {day.year} is not in 1970-2999")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: "Europe" is a directory
        raise ValueError(f"unknown time zone {name!r}") from None
