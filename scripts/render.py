"""Render one combination into a folder, or render it again there: arq-celery [FOLDER] [--test]."""

import argparse
import subprocess
from dataclasses import replace
from pathlib import Path

from tests.renders import RENDERS, ROOT, render, uv_command, uv_environment


def main() -> int:
    """Render, and with `--test` run the service's own suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RENDERS, metavar="NAME", help=", ".join(RENDERS))
    parser.add_argument("folder", nargs="?", type=Path, help="by default .renders/NAME")
    parser.add_argument("--plain", action="store_true", help="without the tests of the engine")
    parser.add_argument("--test", action="store_true", help="run its own suite")
    options = parser.parse_args()
    folder = (options.folder or ROOT / ".renders" / options.name).resolve()
    what = replace(RENDERS[options.name], engine_tests=not options.plain)
    render(what.answers, folder)
    print(folder)
    if not options.test:
        return 0
    return subprocess.run(
        [uv_command(), "run", "pytest"], cwd=folder, env=uv_environment()
    ).returncode


if __name__ == "__main__":
    raise SystemExit(main())
