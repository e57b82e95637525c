"""The command `poe preview`, with a Copier that only adds a file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.renders import ROOT
from tests.services import add_failing_hook
from updates.history import git

UVX = "#!/bin/sh\necho 'New.' > added.txt\n"


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A folder of a repository whose files are committed."""
    folder = tmp_path / "all" / "one"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("A service.\n")
    git(tmp_path / "all", "init", "--quiet")
    git(tmp_path / "all", "add", "--all")
    git(tmp_path / "all", "commit", "--quiet", "--message", "Work")
    return folder


def preview(folder: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "uvx").write_text(UVX)
    (programs / "uvx").chmod(0o755)
    return subprocess.run(
        [sys.executable, str(ROOT / "template/devtools/preview.py")],
        cwd=folder,
        env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        text=True,
        capture_output=True,
    )


def test_a_hook_that_fails_changes_nothing(service: Path, tmp_path: Path) -> None:
    add_failing_hook(service.parent)
    done = preview(service, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert " one/added.txt | 1 +" in done.stdout
    assert [path.name for path in service.iterdir()] == ["README.md"]
    assert git(service, "worktree", "list").count(b"\n") == 1


@pytest.mark.parametrize("place", ["no repository", "no commit", "not committed"])
def test_what_git_has_not_is_refused_in_one_line(service: Path, tmp_path: Path, place: str) -> None:
    folder = service.parent / "two" if place == "not committed" else tmp_path / "two"
    folder.mkdir()
    if place == "no commit":
        git(folder, "init", "--quiet")
    done = preview(folder, tmp_path)
    assert (done.returncode, done.stderr) == (1, "Commit this service to git first.\n")
