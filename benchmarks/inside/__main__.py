"""Measure this service: python -m bench BACKEND OUT [MEASURE ...]."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from bench import finished, latency, noops, orders
from bench.result import Result
from devtools import servers
from devtools.processes import stop

os.environ.update(API_KEY="an operator's key of the benchmark", CONTROL_POLL_DELAY="0.02")


@contextmanager
def all_servers(folder: Path) -> Iterator[None]:
    """Real ones, the same for all that is measured."""
    started = [servers.start(variable, folder) for variable in servers.BROKERS]
    database = servers.start("DATABASE_URL", folder)
    os.environ["POSTGRESQL_URL"] = os.environ.pop("DATABASE_URL")
    try:
        yield
    finally:
        database.send_signal(signal.SIGINT)  # it would wait until every client has gone
        for server in [database, *started]:
            stop(server)


def measured(backend: str, measures: list[str], folder: Path) -> Iterator[Result]:
    os.environ["BENCH_BACKEND"] = backend
    if "orders" in measures:
        for database in orders.DATABASES:
            yield from orders.measure(backend, folder / "orders" / database, database)
    if "noops" in measures:
        yield from noops.measure(folder / "noops")
    if "latency" in measures:
        yield from latency.measure(backend, folder / "latency")
    if "finished" in measures:
        yield from finished.measure(folder / "finished")
    if "relay" in measures:
        yield from latency.relay(folder / "relay")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend")
    parser.add_argument("out", type=Path)
    parser.add_argument("measures", nargs="*")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # not without ending the servers
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        all_servers(Path(folder)),
        options.out.open("w") as out,
    ):
        for result in measured(options.backend, options.measures, Path(folder)):
            out.write(json.dumps(asdict(result)) + "\n")


if __name__ == "__main__":
    main()
