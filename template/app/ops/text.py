"""Shows values of rows as text that is safe and not too long, whatever is in them."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

LONGEST = 20_000  # characters of a value
# Control characters, marks of the text's direction, halves of surrogate pairs, and separators.
UNSHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
KEPT = {"\n", "\t"}
UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1), ("ms", 0.001))


def environment(folder: Path) -> Environment:
    """Templates in which each value is made visible, then escaped."""
    found = Environment(
        loader=FileSystemLoader(folder / "templates"),
        autoescape=True,
        finalize=visible,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    found.filters.update(FILTERS)
    found.globals["asset"] = lambda name: _address(folder / "static" / name)
    return found


def visible(value: Any) -> Any:
    """Characters that can't be seen become what a Python literal has for them."""
    if value is None or hasattr(value, "__html__"):
        return "" if value is None else value
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if _is_unshown(c) else c for c in text)


def _is_unshown(character: str) -> bool:
    return character not in KEPT and unicodedata.category(character) in UNSHOWN


def cut(value: Any, most: int = LONGEST) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters in all)"


def jobs(number: int, more: bool = False) -> str:
    """Such as `1 job` or `2,000 or more jobs`."""
    return f"{number:,}{' or more' * more} {'job' if number == 1 and not more else 'jobs'}"


def as_json(value: Any) -> str:
    try:
        return cut(json.dumps(value, indent=2, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):
        return cut(repr(value))


def iso(moment: Any) -> str:
    """A time in UTC, to the second, or `unreadable`."""
    if not isinstance(moment, datetime):
        return "unreadable"
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def ago(moment: Any) -> str:
    """Such as `3 min ago` or `in 2 h`."""
    if not isinstance(moment, datetime):
        return "unreadable"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if abs(seconds) < 1:
        return "now"
    text = lasts(abs(seconds))
    return f"{text} ago" if seconds > 0 else f"in {text}"


def lasts(duration: timedelta | float) -> str:
    """A duration in the largest unit of which it has at least one."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    name, size = next((each for each in UNITS if seconds >= each[1]), UNITS[-1])
    return f"{seconds / size:.0f} {name}"


def trigger(definition: Any) -> str:
    """The trigger of a stored definition, such as `every 5 min`."""
    found = definition.get("trigger") if isinstance(definition, Mapping) else None
    if not isinstance(found, Mapping):
        return "unreadable"
    seconds = found.get("seconds")
    if found.get("kind") == "interval" and isinstance(seconds, int):
        name, size = next(unit for unit in UNITS if seconds % unit[1] == 0)
        return f"every {seconds // size} {name}"
    if found.get("kind") == "calendar":
        given = [f"{name} {each}" for name, each in found.items() if each and name != "kind"]
        return f"calendar: {', '.join(given)}"
    return " ".join(str(each) for name, each in found.items() if name != "kind")


def pairs(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else [("unreadable", value)]


def first_line(value: Any) -> str:
    return next(iter(str(value).splitlines()), "")


def field(moment: datetime | None) -> str:
    """A time as a browser's field needs it."""
    return iso(moment).removesuffix("Z") if moment else ""


def until(start: Any, end: Any) -> str:
    """How long it was from `start` to `end`."""
    if isinstance(start, datetime) and isinstance(end, datetime):
        return lasts(end - start)
    return "–"


def _address(path: Path) -> str:
    """The address changes with the file's content, so that no browser shows an old one."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return f"/ops/static/{path.name}?{digest}"


FILTERS: dict[str, Callable[..., Any]] = {
    "ago": ago,
    "cut": cut,
    "field": field,
    "first_line": first_line,
    "iso": iso,
    "jobs": jobs,
    "json": as_json,
    "lasts": lasts,
    "pairs": pairs,
    "trigger": trigger,
    "until": until,
    "visible": visible,
}
