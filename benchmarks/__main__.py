"""Render services, measure them, and print the table: uv run poe bench [--only MEASURE]."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any

from benchmarks.rendered import add_bench
from benchmarks.table import print_table
from tests.renders import RENDERS, ROOT, render, uv_command, uv_environment

# Which services each measure renders.
MEASURES = {
    "requests": ("arq", "celery"),
    "orders": ("arq", "background", "celery"),
    "noops": ("arq", "background", "celery"),
    "latency": ("arq", "background", "celery"),
    "burst": ("arq", "celery"),
    "waiting": ("arq-celery",),
    "bulk": ("background",),
    "held": ("arq",),
    "connections": ("arq", "background", "celery"),
    "finished": ("arq",),
    "operators": ("arq",),
    "relay": ("arq",),
    "clocks": ("background", "arq", "celery", "apscheduler", "apscheduler-4"),
}
BACKENDS = sorted({name for names in MEASURES.values() for name in names})


def measure(name: str, measures: list[str]) -> list[dict[str, Any]]:
    """Render a service with the benchmark inside, and run it in the service's environment."""
    folder = ROOT / ".renders" / "benchmarks" / name
    render(RENDERS[name].answers, folder)
    add_bench(folder)
    out = folder / "results.jsonl"
    command = [uv_command(), "run", "python", "-m", "bench", name, str(out), *measures]
    subprocess.run(command, cwd=folder, env=uv_environment(), check=True)
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=MEASURES, action="append", help="may be given again")
    parser.add_argument("--backend", choices=BACKENDS, help="arq-celery: both in one service")
    parser.add_argument("--hold", metavar="SECONDS", help="how long `held` holds; else 60")
    parser.add_argument("--quick", action="store_true", help="whether it runs; no figures")
    options = parser.parse_args()
    if options.hold:
        os.environ["BENCH_HOLD"] = options.hold
    os.environ["BENCH_QUICK"] = str(int(options.quick))
    if not shutil.which("wrk"):
        sys.exit("wrk, the load generator, is not installed: apt-get install wrk")
    wanted = options.only or list(MEASURES)
    began, results = time.monotonic(), []
    for name in [options.backend] if options.backend else BACKENDS:
        if measures := [each for each in wanted if name in MEASURES[each]]:
            results += measure(name, measures)
    print_table(results)
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
