"""What the old and the new release render, in place of files that the service no longer has."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from copier import run_copy

TEMPLATE = Path(__file__).parents[1]


def git(*arguments: str, stdin: bytes | None = None) -> str:
    """Run git without the user's hooks: an error in `post-checkout` would end the update."""
    command = ["git", "-c", f"core.hooksPath={os.devnull}", *arguments]
    done = subprocess.run(command, check=True, input=stdin, stdout=subprocess.PIPE)
    return done.stdout.decode("utf-8", "surrogateescape")


def files(*arguments: str) -> list[str]:
    """The names that git lists, relative to this folder."""
    return [name for name in git(arguments[0], "-z", *arguments[1:]).split("\0") if name]


def at_head(name: str) -> bytes:
    return subprocess.run(["git", "show", f"HEAD:./{name}"], capture_output=True).stdout


def read(name: str) -> bytes:
    """The text of a file of this service; empty if it has none."""
    path = Path(name)
    return path.read_bytes() if path.is_file() else b""


def removed() -> list[str]:
    """The committed files of this service that are missing now."""
    return files("diff", "--relative", "--name-only", "--diff-filter=D", "HEAD")


def owned(names: Iterable[str], own: list[str]) -> list[str]:
    """Those of the names that the user has taken over, by themselves or with their folder."""
    folders = tuple(f"{name}/" for name in own)
    return [name for name in names if f"{name}/".startswith(folders)]


def rendered_names() -> Iterator[str]:
    """Every file that this release renders for some answers."""
    root = TEMPLATE / "template"
    for path in root.rglob("*"):
        name = re.sub(r"\{%.*?%\}", "", path.relative_to(root).as_posix()).removesuffix(".jinja")
        if path.is_file() and "{{" not in name:
            yield name


def gone(old: dict[str, Any], answers_file: str) -> list[str]:
    """The removed files that differ from what the old release rendered."""
    names = removed()
    was = rendered(old, answers_file, names)
    return [name for name in names if at_head(name) != was.get(name)]


def moved(old: dict[str, Any], new: dict[str, Any], answers_file: str) -> Iterator[str]:
    """The command that shows how the template changed each file that the user moved or removed.

    Copier leaves such a file alone. Only git's history tells it from one that was never rendered.
    """
    missing = {*removed_before()} - {*files("ls-tree", "-r", "--name-only", "HEAD")}
    names = missing & {*rendered_names()}
    names -= {*owned(names, new.get("own_files") or [])}
    was = rendered(old, answers_file, sorted(names))
    new = {**new, "_src_path": str(TEMPLATE), "_commit": "HEAD"}
    for name, text in rendered(new, answers_file, [*was]).items():
        if text != was[name]:
            yield f"{name}: git diff --no-ext-diff --no-color {blob(was[name])} {blob(text)}"


def removed_before() -> list[str]:
    """The files that some commit of this service removed or renamed.

    The folder at the end spares git the other folders of a large repository.
    """
    shown = ["--no-renames", "--diff-filter=D", "--relative", "--name-only", "--format="]
    return files("log", *shown, "--full-history", "--", ".")


def rendered(answers: dict[str, Any], answers_file: str, names: list[str]) -> dict[str, bytes]:
    """What these answers and their release render for those of the files that they have."""
    if not names:
        return {}
    with TemporaryDirectory() as folder:
        run_copy(
            answers["_src_path"],
            folder,
            data={name: value for name, value in answers.items() if not name.startswith("_")},
            answers_file=answers_file,
            vcs_ref=answers["_commit"],
            exclude=["*", *(f"!{name}" for name in names)],
            defaults=True,
            quiet=True,
            unsafe=True,
            skip_tasks=True,
        )
        paths = {name: Path(folder) / name for name in names}
        return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}


def blob(text: bytes) -> str:
    """Store a text in the service's repository, where git forgets it after two weeks."""
    return git("hash-object", "-w", "--stdin", stdin=text).strip()[:12]
