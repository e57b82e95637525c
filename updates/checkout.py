"""What Copier's merge would lose in a service's checkout, and what the checkout hides from git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from updates.renders import at_head, files, git, owned, read, rendered_names

# The values with which git does what Copier's merge expects.
UNTRACKED_ARE_SHOWN: Final = ("normal", "all", "true", "yes", "on", "1")
LINES_STAY: Final = ("nowarn", "warn")


def problems(answers_file: str, answers: dict[str, Any]) -> Iterator[str]:
    """Why Copier would lose something, or end half-way, and what to do."""
    yield from problems_of_answers(answers_file, answers)
    yield from problems_of_files(answers.get("own_files") or [])
    yield from problems_of_repository()
    yield from problems_of_names()
    yield from (
        f"Copier would leave out or lose what you wrote. Run git config {setting}."
        for setting in better_settings()
    )


def problems_of_answers(answers_file: str, answers: dict[str, Any]) -> Iterator[str]:
    if not at_head(answers_file):
        yield (
            f"Git has no {answers_file}: an update would end half-way. Commit it (git add --force)."
        )
    if not answers.get("backends"):
        yield (
            f"{answers_file} has no backends: an update would take others, and end half-way. "
            "Write them there again, and commit it."
        )


def problems_of_files(own: list[str]) -> Iterator[str]:
    """What an update could not give back in the files that the template renders."""
    rendered = {*rendered_names()}
    todo = "Commit it (git add --force), or remove it."
    yield from unrestorable("Git ignores", rendered.intersection(ignored()), todo)
    todo = "Run git update-index --no-skip-worktree --no-assume-unchanged, and commit it."
    yield from unrestorable("Git doesn't look at", rendered.intersection(unwatched()), todo)
    todo = "Remove its pattern there (core.excludesFile, or ~/.config/git/ignore)."
    names = rendered.intersection(committed(own))
    matched = names.intersection(ignored_everywhere(names))
    yield from unrestorable("Your global ignore file of git matches", matched, todo)
    unreadable = {name for name in names if not is_text(read(name))}
    todo = "Save it as UTF-8, without NUL."
    yield from unrestorable("Bytes that aren't UTF-8 text are in", unreadable, todo)


def unrestorable(what: str, lost: set[str], todo: str) -> Iterator[str]:
    if lost:
        yield (
            f"{what} {', '.join(sorted(lost))}, which the template renders: an update could not "
            f"give back what you wrote there. {todo}"
        )


def problems_of_repository() -> Iterator[str]:
    """What Copier would do to the whole repository, of which the service may be a folder."""
    if missing := some(missing_outside()):
        yield (
            f"The repository's files {missing} are missing on disk: an update would "
            "write them again. Bring them back (git restore, git sparse-checkout disable)."
        )
    if rejected := some(name for name in untracked() if name.endswith(".rej")):
        yield (
            f"The repository has {rejected}: an update would delete it, and undo what isn't "
            "committed in the file beside it. Apply it, then delete it."
        )


def problems_of_names() -> Iterator[str]:
    """What ends Copier half-way: files with conflicts, and names that it can't read."""
    if conflicts := some(unmerged()):
        yield (
            f"The repository's files {conflicts} are unmerged: an update would end half-way. "
            "Mend them, then git add them."
        )
    names = [*files("ls-files"), *untracked()]
    if unreadable := some(name for name in names if not is_text(os.fsencode(name))):
        yield (
            f"The names {unreadable} aren't UTF-8: an update would end half-way. Rename each file."
        )


def some(names: Iterable[str]) -> str:
    return ", ".join(sorted({*names})[:3])


def is_text(found: bytes) -> bool:
    """Whether these bytes come through Copier's merge, which decodes them."""
    try:
        return "\0" not in found.decode("utf-8")
    except UnicodeDecodeError:
        return False


def ignored() -> list[str]:
    """The files that git ignores."""
    return files("ls-files", "--others", "--ignored", "--exclude-standard")


def unwatched() -> Iterator[str]:
    """The files on disk whose changes git was told to overlook."""
    for line in files("ls-files", "-v"):
        flag, name = line[0], line[2:]
        if (flag.islower() or flag == "S") and Path(name).exists():
            yield name


def committed(own: list[str]) -> list[str]:
    """The service's committed files, without those that the user has taken over."""
    names = files("ls-files")
    theirs = {*owned(names, own)}
    return [name for name in names if name not in theirs]


def ignored_everywhere(names: Iterable[str]) -> list[str]:
    """Those of the names that git ignores even in a new repository, as Copier's copies are."""
    place = git("rev-parse", "--show-prefix").removesuffix("\n")
    with TemporaryDirectory() as folder:
        git("-C", folder, "init", "--quiet")
        command = ["git", "-C", folder, "check-ignore", "--no-index", "-z", "--stdin"]
        asked = os.fsencode("\0".join(f"{place}{name}" for name in names))
        found = subprocess.run(command, input=asked, stdout=subprocess.PIPE).stdout
    return [name.removeprefix(place) for name in os.fsdecode(found).split("\0")]


def untracked() -> list[str]:
    """What git doesn't follow in the whole repository, as Copier asks for it."""
    lines = files("status", "--porcelain", "--ignored")
    return [line[3:] for line in lines if line.startswith(("?? ", "!! "))]


def unmerged() -> Iterator[str]:
    """The files with conflicts of a merge in the whole repository."""
    for line in files("ls-files", "--unmerged", "--", ":/"):
        yield line.partition("\t")[2]


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
    if setting("status.showUntrackedFiles", "normal").lower() not in UNTRACKED_ARE_SHOWN:
        yield "status.showUntrackedFiles normal"
    if setting("apply.whitespace", "warn") not in LINES_STAY:
        yield "apply.whitespace nowarn"
    unquoted = setting("core.quotePath", "true", "--type=bool") == "false"
    if unquoted and not all(name.isascii() for name in everywhere()):
        yield "core.quotePath true"


def setting(name: str, default: str, *options: str) -> str:
    return git("config", *options, "--default", default, "--get", name).strip()
