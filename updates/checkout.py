"""What the state of a service's checkout hides from git, and so from Copier's merge."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from updates.renders import files


def ignored() -> list[str]:
    """The files that git ignores."""
    return files("ls-files", "--others", "--ignored", "--exclude-standard")


def unwatched() -> Iterator[str]:
    """The files on disk whose changes git was told to overlook."""
    for line in files("ls-files", "-v"):
        flag, name = line[0], line[2:]
        if (flag.islower() or flag == "S") and Path(name).exists():
            yield name


def missing_outside() -> Iterator[str]:
    """Committed files of the repository, outside of this folder, that aren't on disk.

    Copier's merge is about the whole repository, and would make them again.
    """
    yield from (name for name in files("ls-files", "--deleted", "--", ":/") if is_outside(name))
    for line in files("ls-files", "-t", "--", ":/"):
        flag, name = line[0], line[2:]
        if flag == "S" and is_outside(name) and not Path(name).exists():
            yield name


def is_outside(name: str) -> bool:
    return name.startswith("../")


def better_settings() -> Iterator[str]:
    """What to set in place of the user's settings of git that Copier's merge doesn't expect."""
    if setting("status.showUntrackedFiles") == "no":
        yield "status.showUntrackedFiles normal"
    if setting("apply.whitespace").startswith("error"):
        yield "apply.whitespace nowarn"
    unquoted = setting("core.quotePath", "--type=bool") == "false"
    if unquoted and not all(name.isascii() for name in files("ls-files", "--", ":/")):
        yield "core.quotePath true"


def setting(name: str, *options: str) -> str:
    """The value of git's setting, or an empty text."""
    command = ["git", "config", *options, "--get", name]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
