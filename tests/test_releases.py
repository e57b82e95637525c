"""Each release is kept whole, and a new one is made by one command."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import add_failing_hook
from updates import history
from updates.history import ROOT, git

# git's ids of the trees that were released.
TREES = {
    "0.1.0": {
        "copier.yml": "23a056e5cfc95a1cb705a2b9ede3c6ff2550c841",
        "extensions": "7b77c65a4edd20f137db26c96e2b0222e52ccf64",
        "template": "4ae8cf0aeabc73c1d39b8abac1f3b12dec716895",
    },
    "0.2.0": {
        "copier.yml": "23a056e5cfc95a1cb705a2b9ede3c6ff2550c841",
        "extensions": "8743be7ad3cfb536ed9a0ab03d1e99bde90ffbdf",
        "template": "90a4b8a623ed9b0918369d16f4b715d8d06ca9e8",
    },
}
PYPROJECT = '[project]\nname = "template"\nversion = "9.0.0"\n'
CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n## [9.0.0] - 2030-01-01\n\n- All of it.\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of this repository in which all is committed for a release."""
    folder = tmp_path / "clone"
    for name in ("copier.yml", "extensions", "scripts", "updates"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        folder.mkdir(exist_ok=True)
        copy(ROOT / name, folder / name)
    (folder / "template").mkdir()
    (folder / "template" / "README.md").write_text("A service.\n")
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "CHANGELOG.md").write_text(CHANGELOG)
    (folder / ".gitignore").write_text("__pycache__/\n")
    git(folder, "init", "--quiet")
    for setting in ("user.name=Maintainer", "user.email=maintainer@example.com"):
        git(folder, "config", *setting.split("="))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "All of it")
    return folder


def release(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.release", *arguments]
    return subprocess.run(command, cwd=clone, text=True, capture_output=True)


def test_archives_hold_what_was_released(tmp_path: Path) -> None:
    repository = history.repository(tmp_path / "template")
    for version, trees in TREES.items():
        for path, tree in trees.items():
            assert git(repository, "rev-parse", f"v{version}:{path}").decode().strip() == tree


def test_tests_that_a_hook_of_git_runs_leave_its_repository_alone(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "staged").touch()
    git(tmp_path, "add", "staged")
    test = f"{__file__}::{test_archives_hold_what_was_released.__name__}"
    command = [sys.executable, "-m", "pytest", "-n0", "-q", test]
    hooks = {"GIT_DIR": f"{tmp_path}/.git", "GIT_INDEX_FILE": f"{tmp_path}/.git/index"}
    subprocess.run(command, cwd=ROOT, env=os.environ | hooks, check=True, capture_output=True)
    assert git(tmp_path, "status", "--porcelain").decode().splitlines() == ["A  staged"]
    assert git(tmp_path, "tag") == b""


def test_a_release_is_an_archive_a_commit_and_a_tag(clone: Path, tmp_path: Path) -> None:
    done = release(clone, "9.0.0")
    assert done.returncode == 0, done.stderr
    assert git(clone, "status", "--porcelain") == b""
    assert git(clone, "describe", "--exact-match").decode().strip() == "v9.0.0"
    assert git(clone, "show", "--format=", "--name-only").decode().split() == [
        "updates/releases/9.0.0.patch.xz"
    ]
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"from updates import history as h; from pathlib import Path;"
            f"h.repository(Path({str(tmp_path / 'rebuilt')!r}))",
        ],
        cwd=clone,
        check=True,
    )
    for path in ("copier.yml", "extensions", "template", "CHANGELOG.md"):
        assert git(tmp_path / "rebuilt", "rev-parse", f"v9.0.0:{path}") == git(
            clone, "rev-parse", f"HEAD:{path}"
        )


def test_a_release_that_git_does_not_commit_can_be_tried_again(clone: Path) -> None:
    hook = add_failing_hook(clone, "pre-commit")
    done = release(clone, "9.0.0")
    assert done.returncode == 1
    assert done.stderr == "no hook works here\nNothing was released: git did not commit it.\n"
    assert git(clone, "status", "--porcelain") == b""
    hook.unlink()
    assert release(clone, "9.0.0", "--check").returncode == 0


def test_a_release_that_git_does_not_tag_says_how_to(clone: Path) -> None:
    git(clone, "config", "tag.gpgSign", "true")
    git(clone, "config", "gpg.program", "false")
    done = release(clone, "9.0.0")
    assert done.returncode == 1
    *_, command = done.stderr.splitlines()[-1].partition("not tagged: ")
    git(clone, "config", "--unset", "tag.gpgSign")
    subprocess.run(shlex.split(command), cwd=clone, check=True)
    assert git(clone, "describe", "--exact-match").decode().strip() == "v9.0.0"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("pyproject.toml", PYPROJECT.replace("9", "8"), "pyproject.toml says version 8.0.0"),
        ("CHANGELOG.md", CHANGELOG.replace("[9", "[8"), "its newest release is [8.0.0]"),
        ("CHANGELOG.md", CHANGELOG.replace("2030-01-01", "soon"), "not [9.0.0] with a date"),
        ("CHANGELOG.md", CHANGELOG.replace("]\n", "]\n\n- More.\n", 1), "move what is under"),
        ("CHANGELOG.md", CHANGELOG.replace("[Unreleased]", "[Next]"), "no section [Unreleased]"),
    ],
)
def test_what_is_not_ready_is_refused(clone: Path, name: str, text: str, problem: str) -> None:
    (clone / name).write_text(text)
    git(clone, "commit", "--quiet", "--all", "--message", "Not ready")
    before = git(clone, "rev-parse", "HEAD")
    done = release(clone, "9.0.0")
    assert done.returncode == 1
    assert problem in done.stderr
    assert git(clone, "rev-parse", "HEAD") == before
    assert git(clone, "status", "--porcelain") == b""


def test_a_dirty_tree_an_old_version_and_a_tag_are_refused(clone: Path) -> None:
    git(clone, "tag", "v0.1.0")
    (clone / "more.txt").touch()
    done = release(clone, "0.1.0")
    assert done.returncode == 1
    for problem in ("more.txt", "not newer than", "there is a tag v0.1.0"):
        assert problem in done.stderr
    assert release(clone, "nine").stderr.count("nine is no version") == 1


def test_this_repository_can_be_archived() -> None:
    """The archive is within its limit at any time, not only when a release is made."""
    from scripts.release import LIMIT, archive_of_working_tree

    assert len(archive_of_working_tree()) < LIMIT
