"""The releases, each kept as a patch on the release before. Neither network nor tags are needed."""

import lzma
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from packaging.version import Version

ROOT: Final = Path(__file__).parents[1]
ARCHIVES: Final = ROOT / "updates" / "releases"
# The parts of a release that Copier reads or an update runs.
PARTS: Final = (
    "CHANGELOG.md",
    "copier.yml",
    "extensions",
    "template",
    "updates/__init__.py",
    "updates/__main__.py",
    "updates/backends.yml",
    "updates/changelog.py",
    "updates/checkout.py",
    "updates/renders.py",
    "updates/steps.py",
)
# With a fixed identity and date a commit has the same id on each machine, whatever git is set to.
IDENTITY: Final = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{f"GIT_{who}_NAME": "Template" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "template@example.com" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_DATE": "2026-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")},
}


def git(folder: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """The output of git in this folder. Raises CalledProcessError."""
    command = ["git", "-C", str(folder), "-c", "init.defaultBranch=main", *arguments]
    environment = os.environ | IDENTITY
    done = subprocess.run(command, check=True, env=environment, input=stdin, stdout=subprocess.PIPE)
    return done.stdout


def versions() -> list[str]:
    """The releases that have an archive, oldest first."""
    names = [path.name.removesuffix(".patch.xz") for path in ARCHIVES.glob("*.patch.xz")]
    return sorted(names, key=Version)


def repository(folder: Path) -> Path:
    """Make a repository that has each release as a commit and a tag."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    for version in versions():
        patch = lzma.decompress((ARCHIVES / f"{version}.patch.xz").read_bytes())
        git(folder, "apply", "--index", "--whitespace=nowarn", "-", stdin=patch)
        commit(folder, f"v{version}")
    return folder


def commit(folder: Path, tag: str) -> None:
    """Commit what is staged, and tag it."""
    git(folder, "commit", "--quiet", "--allow-empty", "--message", tag)
    git(folder, "tag", tag)


def stage_working_tree(folder: Path) -> None:
    """Replace the folder's files by this repository's, even uncommitted ones, and stage them."""
    git(folder, "rm", "-r", "--quiet", "--ignore-unmatch", ".")
    listed = git(ROOT, "ls-files", "-z", "-co", "--exclude-standard", "--", *PARTS).decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git(folder, "add", "--all", "--force")


def archive(folder: Path) -> bytes:
    """The archive of a release: the staged changes as a compressed patch."""
    patch = git(
        folder,
        "diff",
        "--cached",
        "--binary",
        "--full-index",
        "--find-renames",
        "-l0",
        "--no-color",
    )
    return lzma.compress(patch, preset=9 | lzma.PRESET_EXTREME)
