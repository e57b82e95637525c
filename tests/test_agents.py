"""Each command that agents are told works."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.renders import ROOT, uv_command, uv_environment

BLOCK = re.compile(r"```sh\n(.+?)```", re.DOTALL)


def commands(page: str) -> Iterator[str]:
    """Each command of the page's blocks, without its comment."""
    for block in BLOCK.findall(page):
        for line in block.splitlines():
            yield from line.partition(" #")[0].strip().split(" && ")


OURS = (ROOT / "AGENTS.md").read_text("utf-8")


@pytest.mark.parametrize("command", [*commands(OURS)])
def test_a_command_works(command: str) -> None:
    """Of a test run it is enough that it finds its tests: all of them run anyway."""
    if command.startswith("uv run pytest"):
        command += " -n0 -q --collect-only"
    typed = command.replace("uv", uv_command(), 1)
    done = subprocess.run(
        ["sh", "-c", typed], cwd=ROOT, env=uv_environment(), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_is_short() -> None:
    assert len(OURS.splitlines()) < 60
