# mypy: disable-error-code="import-not-found,untyped-decorator"
"""Start servers, print their addresses as JSON, and end them when standard input ends."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from devtools import servers
from devtools.processes import stop


def main(folder: Path, *variables: str) -> None:
    started: dict[str, servers.Child] = {}
    try:
        for variable in variables:
            started[variable] = servers.start(variable, folder)
        print(json.dumps({name: os.environ[name] for name in started}), flush=True)
        sys.stdin.read()
    finally:
        for variable, process in started.items():
            if variable == "DATABASE_URL":  # after SIGTERM PostgreSQL waits for its clients
                process.send_signal(signal.SIGINT)
            stop(process)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
