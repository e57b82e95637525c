"""The command `jobs`: see and change jobs, queues and schedules, also while the API is down."""

from __future__ import annotations

import sys

from app import doctor


def main() -> None:
    """Run the command. The doctor reports wrong settings and broken tasks as findings."""
    _refuse_other_encodings()
    try:
        from app import tasks
        from app.cli import commands

        tasks.load()
    except SystemExit as wrong:
        if sys.argv[1:2] != ["doctor"]:
            raise
        found = [doctor.Finding("settings", line) for line in str(wrong.code).splitlines()]
        sys.exit(doctor.report(found, as_json="--json" in sys.argv))
    commands.cli(prog_name="jobs")


def _refuse_other_encodings() -> None:
    try:
        "".join(sys.argv).encode()
    except UnicodeEncodeError:
        print("the command is not in UTF-8", file=sys.stderr)
        sys.exit(2)
