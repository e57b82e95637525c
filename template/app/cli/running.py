"""Reads a command's options, and runs its work on the database. An error is one line."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

import typer
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli.output import complain
from app.core import database
from app.core.logging import configure_logging
from app.core.outages import advice
from app.jobs import (
    JobNotFoundError,
    JobStateError,
    QueueNotFoundError,
    ScheduleConflictError,
    ScheduleNotFoundError,
)
from app.jobs.backends import EPOCH, registry
from app.schemas.jobs import CURSOR_PATTERN, LATEST

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="One JSON document, as REST answers.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]

MISSING: dict[type[LookupError], str] = {
    JobNotFoundError: "no job {}: `jobs list` shows those that there are",
    QueueNotFoundError: "no queue {}: `jobs queues` shows those that there are",
    ScheduleNotFoundError: "no schedule {}: `jobs schedules` shows those that there are",
}


UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str) -> datetime:
    """An aware time, or how long ago. Raises BadParameter."""
    if ago := re.fullmatch(r"(\d{1,6})([smhdw])", text):
        now, age = datetime.now(UTC), timedelta(**{UNITS[ago[2]]: int(ago[1])})
        return now - min(age, now - EPOCH)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not like 2h or 2026-01-31T12:00Z") from None
    if found.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no time zone: add Z, or one like +01:00")
    if not EPOCH <= found <= LATEST:
        raise typer.BadParameter(f"{text!r} is not within 1970 and 3000")
    return found


def cursor(text: str) -> str:
    """Raises BadParameter."""
    if not re.fullmatch(CURSOR_PATTERN, text):
        raise typer.BadParameter("it must be what the page before named")
    return text


def part(text: str) -> str:
    """Raises BadParameter."""
    if not text:
        raise typer.BadParameter("it is empty, which any error has as a part")
    return text


Since = Annotated[
    datetime | None,
    typer.Option(
        "--since",
        parser=moment,
        metavar="TIME",
        help="Created then or later: 2h ago (s, m, h, d, w), or 2026-01-31T12:00Z.",
    ),
]
Until = Annotated[
    datetime | None,
    typer.Option("--until", parser=moment, metavar="TIME", help="Created before that."),
]
Error = Annotated[
    str | None,
    typer.Option("--error", parser=part, metavar="TEXT", help="A part of the error's text."),
]
After = Annotated[
    str | None,
    typer.Option("--after", parser=cursor, metavar="PLACE", help="What the page before named."),
]


def doubt(task: str | None) -> None:
    """Nothing was found. Say if that can be because of the task's name.

    Rows may have the names of an older release, so that none is refused.
    """
    if task is None or task in registry():
        return
    alike = " or ".join(sorted(name for name in registry() if name.endswith(f".{task}")))
    complain(f"this release has no task {task}" + f": is it {alike}?" * bool(alike))


def run(work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Do the work in a session, whose transaction is committed at the end."""
    try:
        return finish(_in_session(work))
    except tuple(MISSING) as error:
        line = MISSING[type(error)].format(error)
    except (JobStateError, ScheduleConflictError) as error:
        line = str(error)
    except SQLAlchemyError as error:
        line = advice(error)
    complain(line)
    raise typer.Exit(1)


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run the work, then close the database. The log is off: it would mix with the output."""
    configure_logging()
    logging.disable(logging.WARNING)

    async def and_disconnect() -> T:
        try:
            return await work
        finally:
            await database.dispose()
            await asyncio.to_thread(_wait_for_sqlite)

    return asyncio.run(and_disconnect())


def _wait_for_sqlite() -> None:
    """Wait for threads that couldn't open the file: they need the loop when they end."""
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            thread.join(1)


async def _in_session(work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    async with database.AsyncSessionLocal() as session:
        done = await work(session)
        await session.commit()
        return done


def confirm(question: str, *, yes: bool) -> None:
    """End the command unless the answer is yes. Without a terminal nobody can be asked."""
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():  # None: it is closed
        complain(f"{question} Nobody can be asked here, nothing was changed: add --yes")
        raise typer.Exit(2)
    answer, code = _ask(question)
    if answer.strip().lower() not in ("y", "yes"):
        complain("nothing was changed")
        raise typer.Exit(code)


def _ask(question: str) -> tuple[str, int]:
    """The answer, and the exit code if it isn't yes. `typer.confirm` takes Ctrl-C for a no."""
    try:
        typer.echo(f"{question} [y/N]: ", nl=False, err=True)
        answer, code = sys.stdin.readline(), 1
    except KeyboardInterrupt:
        answer, code = "", 130
    if not answer.endswith("\n"):  # the cursor is still behind the question
        typer.echo(err=True)
    return answer, code
