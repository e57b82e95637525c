"""Adds the benchmark to a rendered service."""

import shutil
from pathlib import Path

HERE = Path(__file__).parent


def add_bench(service: Path) -> None:
    """Copy the benchmark, the code to compare with, and the benchmark's own tasks into it."""
    shutil.copytree(HERE / "inside", service / "bench")
    shutil.copytree(HERE / "control", service / "control")
    shutil.copytree(HERE / "peers", service / "peers")
    (service / "bench" / "probes.py").rename(service / "app" / "tasks" / "bench.py")
