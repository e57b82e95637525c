"""Runs the command `jobs` in a fork of a process that has imported it: an import takes a second."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from app.cli import main

OF_ONE_TEST = "PYTEST_CURRENT_TEST"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != OF_ONE_TEST}


# The process that is forked reads its settings from this environment, once.
FIRST = _environment()
FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["__main__", "app.cli.commands", "app.tasks", __name__])


def has_these_settings() -> bool:
    """Whether the process that is forked would read the same settings now."""
    return _environment() == FIRST


def run(arguments: Sequence[str]) -> tuple[int | None, str, str]:
    """The exit code, the standard output and the standard error. The standard input is empty."""
    with TemporaryDirectory() as folder:
        process = FORKING.Process(target=_command, args=(arguments, folder))
        process.start()
        process.join()
        out, err = (Path(folder, name).read_text("utf-8") for name in ("out", "err"))
        return process.exitcode, out, err


def _command(arguments: Sequence[str], folder: str) -> None:
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        with Path(folder, name).open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = ["jobs", *arguments]
    main()
