"""Services as users have them: rendered from a release, committed, changed and updated."""

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

from copier import run_copy, run_update

from tests.renders import shared_by_services, uv_command, uv_environment
from updates import history

NEWEST = "v999.0.0"  # the working tree's tag
HOW: dict[str, Any] = {"defaults": True, "overwrite": True, "quiet": True, "unsafe": True}


def make_template(folder: Path) -> Path:
    """Make a repository with a tag for each release; the newest tag is the working tree."""
    history.repository(folder)
    history.stage_working_tree(folder)
    history.commit(folder, NEWEST)
    return folder


def release(template: Path, files: Mapping[str, str], tag: str) -> None:
    """Add a release in which these files have another text."""
    for name, text in files.items():
        (template / name).write_text(text, "utf-8")
    history.git(template, "add", "--all")
    history.commit(template, tag)


def add_failing_hook(repository: Path, name: str = "post-checkout") -> Path:
    """Add a hook of git that always fails."""
    hook = repository / ".git" / "hooks" / name
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no hook works here >&2\nexit 2\n")
    hook.chmod(0o755)
    return hook


def in_parallel(function: Callable[..., list[str]], cases: Sequence[tuple[Any, ...]]) -> list[str]:
    """The problems of all cases. Copier changes its process's folder, so threads can't be used."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        each = [pool.submit(function, *case) for case in cases]
        return [problem for future in each for problem in future.result()]


class Service:
    """A rendered service in a repository of its own."""

    def __init__(self, template: Path, folder: Path) -> None:
        self.template, self.folder = template, folder

    def render(self, answers: Mapping[str, Any], version: str = NEWEST) -> Self:
        run_copy(str(self.template), self.folder, data=dict(answers), vcs_ref=version, **HOW)
        return self

    def committed(self) -> Self:
        """Commit all files. If there is no repository, make one."""
        if not any((parent / ".git").exists() for parent in (self.folder, *self.folder.parents)):
            self.git("init", "--quiet")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "Work")
        return self

    def update(self, **answers: Any) -> None:
        """Run Copier's update, with these answers in place of the stored ones."""
        run_update(self.folder, data=answers, **HOW)

    def git(self, *arguments: str) -> list[str]:
        """The lines of git's output in this service."""
        return history.git(self.folder, *arguments).decode().splitlines()

    def run(self, command: str, code: int = 0) -> str:
        """The output of a command of uv in this service, which must end with this code."""
        _, verb, *arguments = shlex.split(command)
        exact = ["--exact"] if verb == "run" else []
        done = subprocess.run(
            [uv_command(), verb, *exact, *arguments],
            cwd=self.folder,
            env=uv_environment() | shared_by_services(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def unmerged(self) -> list[str]:
        """The files that git lists with conflicts."""
        return self.git("diff", "--relative", "--name-only", "--diff-filter=U")

    def read(self, name: str) -> str:
        return (self.folder / name).read_text("utf-8")

    def append(self, name: str, text: str) -> None:
        (self.folder / name).write_text(self.read(name) + text, "utf-8")

    def replace(self, name: str, old: str, new: str) -> None:
        assert self.read(name).count(old) == 1
        (self.folder / name).write_text(self.read(name).replace(old, new), "utf-8")

    def files(self) -> dict[str, str]:
        return read_all(self.folder)


def read_all(folder: Path) -> dict[str, str]:
    """The text of each file by its path, without git's, installed and compiled files."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder): path for path in paths}
    return {
        name.as_posix(): path.read_text("utf-8")
        for name, path in sorted(names.items())
        if not {".git", ".venv", "__pycache__"} & {*name.parts}
    }


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """The files that differ, or that are missing on one side."""
    every = sorted(found.keys() | wanted.keys())
    return [f"{name} differs" for name in every if found.get(name) != wanted.get(name)]
