"""The commands. They work on the database alone: processes see there what is to be done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer

from app import doctor
from app.core import database

T = TypeVar("T")

HELP = "Jobs, queues and schedules: see what there is and steer it, also while the API is down."
CODES = (
    "Exit codes: 0 done; 1 what was asked for can't be done, or the doctor found a fault; "
    "2 the command was wrong."
)
cli = typer.Typer(
    help=HELP,
    epilog=CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="One JSON document, as REST answers.")]


def run(work: Coroutine[Any, Any, T]) -> T:
    async def disposing() -> T:
        try:
            return await work
        finally:
            await database.dispose()

    return asyncio.run(disposing())


@cli.callback()
def configure() -> None:
    pass


@cli.command("doctor")
def examine(as_json: Json = False) -> None:
    """What is wrong, and what to do about it: settings, database, brokers, processes."""
    raise typer.Exit(doctor.report(run(doctor.examine()), as_json=as_json))
