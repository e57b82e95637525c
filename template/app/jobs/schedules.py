"""When a schedule is due: four kinds of trigger, and `next_tick`, which alone decides."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from inspect import signature
from typing import Any, Literal, Protocol
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from app.jobs.cron import WallTimes, parse

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CENTURY = timedelta(days=36525)
MAX_GRACE = timedelta(days=366)
MAX_LATE = 1000  # ticks within the grace of a schedule that catches up on each
ID_PATTERN = r"^\w[\w .:-]{0,199}$"

CatchUp = Literal["latest", "each"]
Overlap = Literal["queue", "skip"]


@dataclass(frozen=True, init=False)
class Interval:
    """Every so many whole seconds of elapsed time, counted from 1970-01-01 00:00 UTC."""

    seconds: int

    def __init__(
        self, *, weeks: int = 0, days: int = 0, hours: int = 0, minutes: int = 0, seconds: int = 0
    ) -> None:
        total = seconds + 60 * (minutes + 60 * (hours + 24 * (days + 7 * weeks)))
        whole = total % 1 == 0 and 1 <= total <= CENTURY.total_seconds()
        _require(whole, "an interval is a whole number of seconds, from 1 to a century")
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
        _require(one_kind, "a calendar interval has days and weeks, or months and years")
        short = self.days + 7 * self.weeks <= CENTURY.days and self.months + 12 * self.years <= 1200
        _require(short, "a calendar interval is at most a century")
        _require(0 <= self.hour < 24 and 0 <= self.minute < 60, "hour is 0-23, minute 0-59")
        _require(type(self.start) is date, "start is a date without a time")
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


class SomeTask(Protocol):
    """What a schedule needs to know of a task."""

    @property
    def name(self) -> str: ...

    def dump(self, *args: Any) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Schedule:
    """Submit `task(*args)` at each tick of `trigger`.

    Ticks that come late, but within `misfire_grace`, run as `catch_up` says: `latest` submits one
    job for all of them, `each` one for each. A tick that comes before the job of the last one has
    ended gets its job all the same (`queue`; the task's `max_running` says how many run at once),
    or none (`skip`).

    Raises ValueError, naming the schedule, for arguments that the task refuses, too.
    """

    id: str
    trigger: Trigger
    task: SomeTask
    args: tuple[Any, ...] = ()
    misfire_grace: timedelta = timedelta(minutes=5)
    catch_up: CatchUp = "latest"
    overlap: Overlap = "queue"

    def __post_init__(self) -> None:
        try:
            _require(bool(re.fullmatch(ID_PATTERN, self.id)), f"no id: must match {ID_PATTERN}")
            self.task.dump(*self.args)
            check_grace(self.trigger, self.misfire_grace, self.catch_up)
        except (TypeError, ValueError) as error:
            raise ValueError(f"schedule {self.id!r}: {one_line(error)}") from None


def check_grace(trigger: Trigger, grace: timedelta, catch_up: CatchUp) -> None:
    """Raise ValueError for a grace that is too long, or in which too many ticks want their job."""
    _require(timedelta(0) <= grace <= MAX_GRACE, "misfire_grace is not within 0 and 366 days")
    first = tick = next_tick(trigger, EPOCH)
    ticks = 0
    while catch_up == "each" and first and tick and tick - first <= grace:
        ticks += 1
        _require(ticks <= MAX_LATE, f"more than {MAX_LATE} ticks within misfire_grace: use latest")
        tick = next_tick(trigger, tick)


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
    _require(isinstance(data, dict), "a trigger is an object")
    fields = dict(data)
    kind = fields.pop("kind", None)
    _require(isinstance(kind, str) and kind in KINDS, f"kind is one of {', '.join(KINDS)}")
    parameters = signature(KINDS[kind]).parameters
    for name, value in fields.items():
        _require(name in parameters, f"{kind} has no field {name!r}")
        fields[name] = _decode(name, value, parameters[name].annotation)
    for name, parameter in parameters.items():
        _require(name in fields or parameter.default is not parameter.empty, f"{name} is missing")
    trigger: Trigger = KINDS[kind](**fields)
    return trigger


def _decode(name: str, value: object, wanted: type) -> object:
    if isinstance(value, str) and issubclass(wanted, date):
        return wanted.fromisoformat(value)
    # Not isinstance: True is no number of days.
    _require(type(value) is wanted, f"{name} must be {wanted.__name__}")
    return value


def _require(ok: bool, reason: str) -> None:
    if not ok:
        raise ValueError(reason)


def one_line(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    each = ((".".join(map(str, one["loc"])), one["msg"]) for one in error.errors())
    return ", ".join(f"{name}: {message}" for name, message in each)


def _check_aware(moment: datetime) -> None:
    _require(moment.utcoffset() is not None, f"{moment.isoformat()} has no time zone")


def _check_year(day: date) -> None:
    # Leaves datetime room to change the time zone and to count on.
    _require(1970 <= day.year < 3000, f"year {day.year} is not in 1970-2999")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: "Europe" is a directory
        raise ValueError(f"unknown time zone {name!r}") from None
