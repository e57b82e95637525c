"""Write the tables of docs/schedules.md by running the code that the page describes.

uv run python scripts/schedule_tables.py
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

ROOT = Path(__file__).parents[1]
APP = ROOT / "template" / "app"
PAGE = ROOT / "docs" / "schedules.md"
BLOCK = re.compile(r"(<!-- made by scripts/schedule_tables.py: (\w+) -->\n).*?(<!-- end -->)", re.S)


def load_triggers() -> ModuleType:
    """Import `app.jobs.triggers` without its packages' imports, which need a database driver."""
    for name, folder in (("app", APP), ("app.jobs", APP / "jobs")):
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return importlib.import_module("app.jobs.triggers")


NAMES: dict[str, Any] = {"date": date, "datetime": datetime, "UTC": UTC} | vars(load_triggers())

PLAIN = [
    ("Interval(minutes=20)", "2026-01-15 10:07"),
    ("Interval(hours=7)", "2026-01-15 10:07"),
    ("Interval(weeks=1)", "2026-01-15 10:07"),
    ('Cron("*/20 * * * *")', "2026-01-15 10:07"),
    ('Cron("0 6 * * mon-fri")', "2026-01-16 10:07"),
    ('Cron("0 6 * * 1")', "2026-01-16 10:07"),
    ('Cron("0 6 * * sat-sun", timezone="Europe/Berlin")', "2026-01-15 10:07"),
    ('Cron("30 8 31 * *")', "2026-01-15 10:07"),
    ('Cron("0 0 29 2 *")', "2026-01-15 10:07"),
    ("CalendarInterval(days=1, hour=9)", "2026-01-15 10:07"),
    ("CalendarInterval(weeks=2, hour=9, start=date(2026, 1, 6))", "2026-01-15 10:07"),
    ("CalendarInterval(months=1, start=date(2026, 1, 31))", "2026-01-15 10:07"),
    ("CalendarInterval(years=1, start=date(2024, 2, 29))", "2026-01-15 10:07"),
    ("Date(datetime(2026, 12, 24, 18, tzinfo=UTC))", "2026-01-15 10:07"),
]
SPRING, AUTUMN = "2026-03-28 23:00", "2026-10-24 23:00"
CHANGES = [
    ('Cron("30 2 * * *", timezone="Europe/Berlin")', SPRING),
    ('Cron("5,25,47 2 * * *", timezone="Europe/Berlin")', SPRING),
    ('Cron("0 0 * * mon", timezone="Europe/Berlin")', SPRING),
    ('Cron("*/30 * * * *", timezone="Europe/Berlin")', "2026-03-29 00:20"),
    ('CalendarInterval(days=1, hour=2, minute=30, timezone="Europe/Berlin")', SPRING),
    ("Interval(hours=1)", "2026-03-29 00:20"),
    ('Cron("30 2 * * *", timezone="Europe/Berlin")', AUTUMN),
    ('Cron("*/30 2 * * *", timezone="Europe/Berlin")', AUTUMN),
    ('CalendarInterval(days=1, hour=2, minute=30, timezone="Europe/Berlin")', AUTUMN),
    ("Interval(hours=1)", "2026-10-25 00:20"),
    ('Cron("15 2 * * *", timezone="Australia/Lord_Howe")', "2026-10-03 12:00"),
    ('Cron("45 1 * * *", timezone="Australia/Lord_Howe")', "2026-04-04 12:00"),
]
REFUSED = [
    'Cron("0 6 * * * *")',
    'Cron("@daily")',
    'Cron("0 0 1 * mon")',
    'Cron("0 0 L * *")',
    'Cron("0 0 * * 1#2")',
    'Cron("0 0 ? * *")',
    'Cron("60 * * * *")',
    'Cron("0 22-2 * * *")',
    'Cron("5/15 * * * *")',
    'Cron("*/90 * * * *")',
    'Cron("0 0 30 2 *")',
    'Cron("0 6 * * *", timezone="Mars/Base")',
    "Interval(seconds=0)",
    "CalendarInterval(days=1, months=1)",
    "Date(datetime(2026, 12, 24, 18))",
]


def ticks(trigger: Any, after: datetime) -> Iterator[datetime]:
    """Yield every tick later than `after`."""
    while tick := NAMES["next_tick"](trigger, after):
        yield (after := tick)


def show(moment: datetime, zone: ZoneInfo) -> str:
    """The local time, with the offset from UTC if it isn't zero."""
    local = moment.astimezone(zone)
    offset = local.strftime("%z") if local.utcoffset() else ""
    return f"{local:%a %Y-%m-%d %H:%M} {offset}".strip()


def table_of(rows: list[tuple[str, str]], count: int) -> str:
    lines = ["| trigger | after (UTC) | next ticks |", "|---|---|---|"]
    for source, after in rows:
        trigger = eval(source, dict(NAMES))
        zone = ZoneInfo(getattr(trigger, "timezone", "UTC"))
        start = datetime.fromisoformat(after).replace(tzinfo=UTC)
        found = [show(tick, zone) for tick in islice(ticks(trigger, start), count)]
        over = [] if len(found) == count else ["over"]
        lines.append(f"| `{source}` | {after} | {'<br>'.join(found + over)} |")
    return "\n".join(lines)


def table_of_refusals() -> str:
    lines = ["| refused | reason |", "|---|---|"]
    for source in REFUSED:
        try:
            eval(source, dict(NAMES))
        except ValueError as error:
            lines.append(f"| `{source}` | `{error}` |")
        else:
            raise AssertionError(f"{source} is not refused")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "plain": lambda: table_of(PLAIN, 3),
    "changes": lambda: table_of(CHANGES, 4),
    "refused": table_of_refusals,
}


def rewritten(page: str) -> str:
    """The page with new tables."""
    return BLOCK.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
