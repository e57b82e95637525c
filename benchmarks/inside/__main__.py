"""Measure this service: python -m bench BACKEND OUT [MEASURE ...]."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from bench import (
    bulk,
    burst,
    clocks,
    connections,
    drains,
    finished,
    held,
    latency,
    operators,
    requests,
    waiting,
)
from bench.progress import say
from bench.result import Result
from bench.servers import all_servers

os.environ.update(API_KEY="an operator's key of the benchmark", CONTROL_POLL_DELAY="0.02")


def drained(backend: str, folder: Path, what: str) -> Iterator[Result]:
    return drains.measure(backend, what, folder)


MEASURES: dict[str, Callable[[str, Path], Iterator[Result]]] = {
    "requests": requests.measure,
    "orders": partial(drained, what="orders"),
    "noops": partial(drained, what="noops"),
    "latency": latency.measure,
    "burst": burst.measure,
    "waiting": waiting.measure,
    "bulk": bulk.measure,
    "held": held.measure,
    "connections": connections.measure,
    "finished": finished.measure,
    "operators": operators.measure,
    "relay": latency.relay,
    "clocks": clocks.measure,
}


def measured(backend: str, names: list[str], folder: Path) -> Iterator[Result]:
    for name in names:
        began = time.monotonic()
        yield from MEASURES[name](backend, folder / name)
        say(f"{backend}, {name}: {(time.monotonic() - began) / 60:.1f} minutes")


def end(*_: object) -> None:
    """End the servers, too. A second SIGTERM must not interrupt that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend")
    parser.add_argument("out", type=Path)
    parser.add_argument("measures", nargs="*")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, end)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        all_servers(Path(folder)),
        options.out.open("w") as out,
    ):
        for result in measured(options.backend, options.measures, Path(folder)):
            out.write(json.dumps(asdict(result)) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
