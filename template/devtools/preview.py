"""Shows what an update of the template would change: `uv run poe preview`, with Copier's options.

It updates a copy of the last commit, so that nothing here changes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

COPIER = ["uvx", "--with", "copier-template-extensions", "copier"]
UPDATE = [*COPIER, "update", "--trust", "--defaults"]


def git(*arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run(["git", *arguments], cwd=cwd, check=True, stdout=subprocess.PIPE)
    return done.stdout.decode()


def main() -> int:
    """Returns what Copier returned."""
    place = git("rev-parse", "--show-prefix").strip()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        git("worktree", "add", "--quiet", "--detach", str(copy))
        try:
            done = subprocess.run([*UPDATE, *sys.argv[1:]], cwd=copy / place)
            git("add", "--all", cwd=copy)
            print(git("diff", "--cached", "--stat=120", "HEAD", cwd=copy))
        finally:
            git("worktree", "remove", "--force", str(copy))
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
