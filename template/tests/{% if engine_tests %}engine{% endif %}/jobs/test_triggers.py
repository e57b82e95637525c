"""Wrong triggers are refused with the reason. Triggers are stored as JSON."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.jobs import CalendarInterval, Cron, Date, Interval
from app.jobs.triggers import Trigger

TRIGGER: TypeAdapter[Trigger] = TypeAdapter(Trigger)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "five fields, not 0"),
        ("* * * *", "five fields, not 4"),
        ("0 0 * * * *", "five fields, not 6"),
        ("@daily", "five fields, not 1"),
        ("0 0 1 * mon", "day of month or day of week must be \\*: programs"),
        ("0 0 */2 * 1", "day of month or day of week must be \\*: programs"),
        ("0 0 L * *", "day of month: 'L'"),
        ("0 0 15W * *", "day of month: '15W'"),
        ("0 0 * * 1#2", "day of week: '1#2'"),
        ("0 0 * * 5L", "day of week: '5L'"),
        ("0 0 ? * *", "day of month: '?'"),
        ("60 * * * *", "minute: '60' is not within 0-59"),
        ("* 24 * * *", "hour: '24' is not within 0-23"),
        ("0 0 0 * *", "day of month: '0' is not within 1-31"),
        ("0 0 * 13 *", "month: '13' is not within 1-12"),
        ("0 0 * * 8", "day of week: '8' is not within 0-7"),
        ("0 0 * mon *", "month: 'mon'"),
        ("0 0 * * jan", "day of week: 'jan'"),
        ("0 22-2 * * *", "hour: '22-2' runs backwards"),
        ("0 0 * * fri-mon", "day of week: 'fri-mon' runs backwards"),
        ("*/0 * * * *", "minute: the step of '\\*/0' is not within 1-59"),
        ("*/60 * * * *", "minute: the step of '\\*/60' is not within 1-59"),
        ("0 0-4/9 * * *", "hour: the step of '0-4/9' is not within 1-4"),
        ("5/15 * * * *", "minute: '5/15' is not"),
        ("1,,2 * * * *", "minute: '' is not"),
        ("-1 * * * *", "minute: '-1' is not"),
        ("1.5 * * * *", "minute: '1.5' is not"),
        ("\u0661 * * * *", "minute: '\u0661' is not"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 2,4,6,9,11 *", "never fires"),
    ],
)
def test_cron_refuses(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Cron(expression)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({}, "Unable to extract tag using discriminator 'kind'"),
        ({"kind": "lunar"}, "expected tags: 'interval', 'cron', 'calendar', 'date'"),
        ({"kind": ["cron"]}, "does not match any of the expected tags"),
        ({"kind": "cron"}, r"cron\.expression\s+Field required"),
        ({"kind": "cron", "expression": 5}, r"cron\.expression\s+Input should be a valid string"),
        (
            {"kind": "cron", "expression": "* * * * *", "tz": "UTC"},
            r"cron\.tz\s+Unexpected",
        ),
        ({"kind": "cron", "expression": "* * * * *", "timezone": "Mars/Base"}, "unknown time zone"),
        ({"kind": "cron", "expression": "* * * * *", "timezone": "Europe"}, "unknown time zone"),
        ({"kind": "cron", "expression": "* * * * *", "timezone": "../etc"}, "unknown time zone"),
        ({"kind": "cron", "expression": "* * * * *", "timezone": ""}, "unknown time zone"),
        ({"kind": "interval"}, "whole number of seconds"),
        ({"kind": "interval", "seconds": 0}, "whole number of seconds"),
        ({"kind": "interval", "seconds": -60}, "whole number of seconds"),
        ({"kind": "interval", "seconds": 10**30}, "whole number of seconds"),
        (
            {"kind": "interval", "seconds": 0.5},
            r"interval\.seconds\s+.*valid integer",
        ),
        (
            {"kind": "interval", "seconds": True},
            r"interval\.seconds\s+.*valid integer",
        ),
        ({"kind": "date"}, r"date\.at\s+Field required"),
        ({"kind": "date", "at": "2026-03-29T12:00:00"}, "no time zone"),
        ({"kind": "date", "at": "tomorrow"}, "tomorrow"),
        ({"kind": "date", "at": 1_790_000_000}, "valid datetime"),
        ({"kind": "date", "at": "2026-03-29"}, "no time zone"),
        ({"kind": "calendar", "days": 1, "start": 7}, "valid date"),
        ({"kind": "calendar", "days": "1"}, "valid integer"),
        ({"kind": "date", "at": "9999-12-31T23:59:00-05:00"}, "year 9999"),
        ({"kind": "calendar"}, "days and weeks, or months and years"),
        ({"kind": "calendar", "days": 1, "months": 1}, "days and weeks, or months and years"),
        ({"kind": "calendar", "days": 2, "weeks": -1}, "days and weeks, or months and years"),
        ({"kind": "calendar", "days": 10**30}, "at most a century"),
        ({"kind": "calendar", "days": 1, "hour": 24}, "hour is 0-23"),
        ({"kind": "calendar", "days": 1, "minute": 60}, "minute 0-59"),
        ({"kind": "calendar", "days": 1, "start": "9999-12-31"}, "year 9999"),
        ({"kind": "calendar", "days": 1, "start": "2026-02-30"}, "day"),
        ({"kind": "calendar", "days": 1, "timezone": "Mars/Base"}, "unknown time zone"),
    ],
    ids=str,
)
def test_wrong_json_is_refused(data: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TRIGGER.validate_python(data)


def test_an_interval_has_no_fractions() -> None:
    with pytest.raises(ValueError, match="whole number of seconds"):
        Interval(seconds=1.5)  # type: ignore[arg-type]


def test_a_calendar_interval_starts_on_a_date() -> None:
    with pytest.raises(ValueError, match="without a time"):
        # To mypy a datetime is a date.
        CalendarInterval(days=1, start=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("trigger", "data"),
    [
        (Interval(hours=1), {"kind": "interval", "seconds": 3600}),
        (
            Cron("0 6 * * mon-fri", timezone="Europe/Berlin"),
            {"kind": "cron", "expression": "0 6 * * mon-fri", "timezone": "Europe/Berlin"},
        ),
        (
            CalendarInterval(weeks=2, hour=9, start=date(2026, 1, 31)),
            {"kind": "calendar", "days": 0, "weeks": 2, "months": 0, "years": 0, "hour": 9}
            | {"minute": 0, "timezone": "UTC", "start": "2026-01-31"},
        ),
        (
            Date(datetime(2026, 3, 29, 12, tzinfo=timezone(timedelta(hours=2)))),
            {"kind": "date", "at": "2026-03-29T12:00:00+02:00"},
        ),
    ],
    ids=["interval", "cron", "calendar", "date"],
)
def test_a_trigger_becomes_json_and_back(trigger: Trigger, data: dict[str, Any]) -> None:
    assert TRIGGER.dump_python(trigger, mode="json") == data
    assert TRIGGER.validate_python(json.loads(json.dumps(data))) == trigger
