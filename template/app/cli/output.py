"""Writes results to standard output, and all else to standard error.

Values come from rows that anybody may have written, and none of them may control a terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic_core import to_jsonable_python
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from app.core.logging import escaped

WIDEST = 100_000  # characters of a line that no terminal cuts
GAP = 2  # characters between columns
CUT = 20  # characters that the last column keeps, if it is cut
STYLES = {
    "fault": "red",
    "dead": "red",
    "no": "red",
    "note": "yellow",
    "paused": "yellow",
    "running": "cyan",
    "ok": "green",
    "succeeded": "green",
}


def console(*, stderr: bool = False) -> Console:
    """A console. It writes plain text if NO_COLOR is set or the output is no terminal."""
    file = sys.stderr if stderr else sys.stdout  # None: it is closed
    return Console(
        stderr=stderr,
        width=None if file and file.isatty() else WIDEST,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        highlight=False,
        markup=False,
        emoji=False,
    )


def show_json(document: Any) -> None:
    """Write one document in ASCII, so that no character of it can control a terminal."""
    print(json.dumps(to_jsonable_python(document), indent=2))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], none: str) -> None:
    """Write a table. A terminal cuts the last column alone; if that isn't enough, write lists."""
    found, to = [[*map(text_of, row)] for row in rows], console()
    if not found:
        to.print(none, soft_wrap=True)
        return
    by_column = zip(columns, *found, strict=True)
    *whole, last = [max(cell_len(escaped(text)) for text in column) for column in by_column]
    left = to.width - sum(each + GAP for each in whole)
    if left < min(last, CUT):
        _show_lists(columns, found)
    else:
        to.print(_table(columns, found, left))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], last: int) -> Table:
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.no_wrap = True
    table.columns[-1].max_width = last
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _show_lists(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for number, row in enumerate(rows):
        if number:
            say("")
        show_pairs({name: text for name, text in zip(columns, row, strict=True) if text})


def show_pairs(pairs: Mapping[str, object]) -> None:
    """Write a line for each value. More lines of a value are indented below its first one."""
    width = max(map(len, pairs))
    for name, value in pairs.items():
        lines = text_of(value).splitlines() if isinstance(value, str) else [text_of(value)]
        line = Text(f"{name:{width}}  ", style="bold")
        line.append_text(_cell("".join(lines[:1])))
        console().print(line, soft_wrap=True)
        for more in lines[1:]:
            console().print(Text(f"{'':{width}}  {escaped(more)}"), soft_wrap=True)


def say(line: str, *, style: str = "") -> None:
    console().print(Text(escaped(line), style=style), soft_wrap=True)


def complain(line: str) -> None:
    console(stderr=True).print(Text(escaped(line)), soft_wrap=True)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """On a terminal, show a bar. The body calls what it gets with each number that is done."""
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    to = console(stderr=True)
    with Progress(*columns, console=to, transient=True, disable=not to.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda number: bar.advance(task, number)


def counted(number: object, one: str, many: str) -> str:
    """A number and what it counts, such as `1 job`, `2 jobs` or `1+ jobs`."""
    return f"{number} {one if str(number) == '1' else many}"


def text_of(value: object) -> str:
    """A value as text. It may still have characters that a terminal would obey."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
    if isinstance(value, timedelta):
        return str(timedelta(seconds=round(value.total_seconds())))
    if isinstance(value, UUID):
        return str(value)
    return value if isinstance(value, str) else json.dumps(to_jsonable_python(value))


def _cell(value: object) -> Text:
    text = escaped(text_of(value))
    return Text(text, style=STYLES.get(text, ""))
