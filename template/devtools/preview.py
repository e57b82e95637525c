"""Shows what an update of the template would change: `uv run poe preview`, with Copier's options.

It updates a copy of the last commit, so that nothing here changes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

COPIER = ["uvx", "--python", ">=3.11", "--with", "copier-template-extensions", "copier"]
UPDATE = [*COPIER, "update", "--trust", "--defaults"]


def git(*arguments: str, cwd: Path | None = None) -> str:
    """Run git without the user's hooks: an error in one would end the preview."""
    command = ["git", "-c", f"core.hooksPath={os.devnull}", *arguments]
    done = subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE)
    return done.stdout.decode()


def is_committed() -> bool:
    """Whether the last commit has this folder."""
    command = ["git", "rev-parse", "--verify", "--quiet", "HEAD:./"]
    return subprocess.run(command, capture_output=True).returncode == 0


def main() -> int:
    """Returns what Copier returned."""
    if not is_committed():
        print("Commit this service to git first.", file=sys.stderr)
        return 1
    place = git("rev-parse", "--show-prefix").strip()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        try:
            git("worktree", "add", "--quiet", "--detach", str(copy))
            return show_update(copy, copy / place)
        finally:
            git("worktree", "remove", "--force", str(copy))


def show_update(copy: Path, service: Path) -> int:
    done = subprocess.run([*UPDATE, *sys.argv[1:]], cwd=service)
    git("add", "--all", cwd=copy)
    print(git("diff", "--cached", "--stat=120", "HEAD", cwd=copy))
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
