"""Runs the command `jobs` as a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.service import ROOT

JOBS = str(Path(sys.executable).with_name("jobs"))


def jobs(
    *arguments: str,
    code: int | None = 0,
    folder: Path = ROOT,
    env: Mapping[str, str] | None = None,
) -> str:
    """The standard output, or else the standard error. `code=None` allows any exit code."""
    done = subprocess.run(
        [JOBS, *arguments],
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert code in (None, done.returncode), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout or done.stderr


def as_json(*arguments: str, **how: Any) -> Any:
    return json.loads(jobs(*arguments, "--json", **how))


def findings(code: int | None, **how: Any) -> dict[str, str]:
    """The doctor's lines, by level and subject."""
    said: defaultdict[str, str] = defaultdict(str)
    for each in as_json("doctor", code=code, **how)["data"]:
        said[f"{each['level']} {each['about']}"] += f"{each['what']}: {each['todo']}\n"
    return said
