"""Runs the command `jobs` in a process of its own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.engine.devtools.started import ON_A_TERMINAL
from tests.engine.operations import forked
from tests.service import ROOT

JOBS = str(Path(sys.executable).with_name("jobs"))


def jobs(
    *arguments: str,
    code: int | None = 0,
    folder: Path = ROOT,
    env: Mapping[str, str] | None = None,
) -> str:
    """The standard output, or else the standard error. `code=None` allows any exit code."""
    if folder == ROOT and not env and forked.has_these_settings():
        ended, out, err = forked.run(arguments)
    else:
        ended, out, err = _run(arguments, folder, env or {})
    assert code in (None, ended), out + err
    assert "Traceback" not in err
    return out or err


def _run(arguments: Sequence[str], folder: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
    done = subprocess.run(
        [JOBS, *arguments],
        cwd=folder,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def as_json(*arguments: str, **how: Any) -> Any:
    return json.loads(jobs(*arguments, "--json", **how))


def on_a_terminal(
    *arguments: str,
    answer: str = "",
    meanwhile: Callable[[], object] = lambda: None,
    columns: int = 500,
    **env: str,
) -> tuple[int, str]:
    """Run the command on a terminal; returns its exit code and all that the terminal shows.

    It is answered when it asks. `meanwhile` is called before that.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    here = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, JOBS, *arguments],
        cwd=ROOT,
        env={**here, "TERM": "xterm", **env},
        stdin=theirs,
    )
    os.close(theirs)
    said = b""
    for part in until_closed(ours):
        said += part
        if answer and b"Go on?" in said:
            meanwhile()
            os.write(ours, answer.encode())
            answer = ""
    os.close(ours)
    return process.wait(), said.decode()


def until_closed(terminal: int) -> Iterator[bytes]:
    """Read until the terminal is closed, which Linux reports by an error."""
    try:
        while part := os.read(terminal, 4096):
            yield part
    except OSError:
        return


def findings(code: int | None, **how: Any) -> dict[str, str]:
    """The doctor's lines, by level and subject."""
    said: defaultdict[str, str] = defaultdict(str)
    for each in as_json("doctor", code=code, **how)["data"]:
        said[f"{each['level']} {each['about']}"] += f"{each['what']}: {each['todo']}\n"
    return said
