"""The commands that `jobs` has."""

from __future__ import annotations

from collections.abc import Callable

import typer

from app import doctor
from app.cli import jobs, steering
from app.cli.running import Json, finish

HELP = "Jobs, queues and schedules: see what there is and steer it, also while the API is down."
CODES = (
    "Exit codes: 0 done; 1 what was asked for can't be done, or the doctor found a fault; "
    "2 the command was wrong; 130 it was interrupted."
)


def examine(as_json: Json = False) -> None:
    """Say what is wrong and what to do.

    It examines settings, the database, brokers, queues, processes and schedules, and writes a line
    for each finding. A fault must be mended; a note is worth knowing.
    """
    raise typer.Exit(doctor.report(finish(doctor.examine()), as_json=as_json))


cli = typer.Typer(
    help=HELP,
    epilog=CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "list": jobs.list_jobs,
    "show": jobs.show,
    "replay": jobs.replay,
    "cancel": jobs.cancel,
    "queues": steering.queues,
    "pause": steering.pause,
    "resume": steering.resume,
    "schedules": steering.schedules,
    "run": steering.run_schedule,
    "processes": steering.processes,
    "doctor": examine,
}
for _name, _command in COMMANDS.items():
    cli.command(_name)(_command)
