"""A rendered service with the bench inside."""

import shutil
from pathlib import Path

HERE = Path(__file__).parent


def add_bench(service: Path) -> None:
    """What measures it, what it is measured beside, and tasks that only the benchmark has."""
    shutil.copytree(HERE / "inside", service / "bench")
    shutil.copytree(HERE / "control", service / "control")
    shutil.copytree(HERE / "peers", service / "peers")
    (service / "bench" / "probes.py").rename(service / "app" / "tasks" / "bench.py")
