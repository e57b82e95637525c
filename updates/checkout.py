"""What the state of a service's checkout hides from git, and so from Copier's merge."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from updates.renders import files, git


def ignored() -> list[str]:
    """The files that git ignores."""
    return files("ls-files", "--others", "--ignored", "--exclude-standard")


def unwatched() -> Iterator[str]:
    """The files on disk whose changes git was told to overlook."""
    for line in files("ls-files", "-v"):
        flag, name = line[0], line[2:]
        if (flag.islower() or flag == "S") and Path(name).exists():
            yield name


def missing_outside() -> list[str]:
    """Committed files of the repository, outside of this folder, that aren't on disk.

    Copier's merge is about the whole repository, and would make them again.
    """
    outside = (name for name in everywhere() if name.startswith("../"))
    return [name for name in outside if not os.path.lexists(name)]


def everywhere() -> list[str]:
    """The committed files of the whole repository."""
    return files("ls-files", "--", ":/")


def better_settings() -> Iterator[str]:
    """What to set in place of the user's settings of git that Copier's merge doesn't expect."""
    if setting("status.showUntrackedFiles", "") == "no":
        yield "status.showUntrackedFiles normal"
    if setting("apply.whitespace", "").startswith("error"):
        yield "apply.whitespace nowarn"
    unquoted = setting("core.quotePath", "true", "--type=bool") == "false"
    if unquoted and not all(name.isascii() for name in everywhere()):
        yield "core.quotePath true"


def setting(name: str, default: str, *options: str) -> str:
    return git("config", *options, "--default", default, "--get", name).strip()
