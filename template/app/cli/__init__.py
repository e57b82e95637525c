"""The command `jobs`: see what there is to do and steer it, also while the API is down."""

from __future__ import annotations

import sys

from app import doctor


def main() -> None:
    """Wrong settings and broken tasks show when they are loaded; the doctor reports them, too."""
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
