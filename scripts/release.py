"""Release what is committed: make its archive, a commit and a tag. `--check` changes nothing."""

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from packaging.version import InvalidVersion, Version

from updates import history

ROOT = Path(__file__).parents[1]
LIMIT = 400_000  # bytes of an archive; 0.2.0 had 150,000, before all words were revised


def main() -> int:
    """Make the release; if something is wrong, print a line for each problem instead."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="such as 0.3.0")
    parser.add_argument("--check", action="store_true", help="only say what is wrong")
    options = parser.parse_args()
    archive = archive_of_working_tree()
    found = list(problems(options.version, archive))
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    if found or options.check:
        return 1 if found else 0
    release(options.version, archive)
    return 0


def problems(version: str, archive: bytes) -> Iterator[str]:
    """What must be corrected before the release."""
    if dirty := history.git(ROOT, "status", "--porcelain"):
        yield f"commit or stash first: {dirty.decode().split()[1]} and what else is not committed"
    yield from problems_of_version(version)
    yield from problems_of_changelog(version, (ROOT / "CHANGELOG.md").read_text("utf-8"))
    if len(archive) > LIMIT:
        yield f"the archive has {len(archive)} bytes, {LIMIT} at most: what made the template grow?"


def problems_of_version(version: str) -> Iterator[str]:
    try:
        wanted = Version(version)
    except InvalidVersion:
        yield f"{version} is no version"
        return
    released = history.versions()
    if released and wanted <= Version(released[-1]):
        yield f"{version} is not newer than {released[-1]}, which has an archive"
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    if stated != version:
        yield f"pyproject.toml says version {stated}, not {version}"
    if history.git(ROOT, "tag", "--list", f"v{version}"):
        yield f"there is a tag v{version}"


def problems_of_changelog(version: str, text: str) -> Iterator[str]:
    """The changelog's newest release must be this one, and [Unreleased] must be empty."""
    heads = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    sections = {head.partition("\n")[0]: head.partition("\n")[2].strip() for head in heads}
    waiting = sections.pop("[Unreleased]", None)
    if waiting is None:
        yield "CHANGELOG.md has no section [Unreleased]"
    elif waiting:
        yield f"CHANGELOG.md: move what is under [Unreleased] to [{version}] - {date.today()}"
    newest = next(iter(sections), "none")
    if not re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", newest):
        yield f"CHANGELOG.md: its newest release is {newest}, not [{version}] with a date"


def archive_of_working_tree() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        repository = history.repository(Path(folder) / "template")
        history.stage_working_tree(repository)
        return history.archive(repository)


def release(version: str, archive: bytes) -> None:
    """Write the archive, commit it and tag the commit. The maintainer pushes both."""
    path = history.ARCHIVES / f"{version}.patch.xz"
    path.write_bytes(archive)
    git("add", str(path))
    try:
        git("commit", "--quiet", "--message", f"Release {version}")
    except subprocess.CalledProcessError:
        git("rm", "--quiet", "--cached", str(path))
        path.unlink()
        raise SystemExit("Nothing was released: git did not commit it.") from None
    tag = ["tag", "--annotate", "--message", f"Release {version}", f"v{version}"]
    try:
        git(*tag)
    except subprocess.CalledProcessError:
        raise SystemExit(f"It is committed, but not tagged: {shlex.join(['git', *tag])}") from None
    print(f"Committed and tagged: git push --follow-tags origin v{version} HEAD")


def git(*arguments: str) -> None:
    """Run git as the maintainer, with hooks and settings."""
    subprocess.run(["git", "-C", str(ROOT), *arguments], check=True)


if __name__ == "__main__":
    raise SystemExit(main())
