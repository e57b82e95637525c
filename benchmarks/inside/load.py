"""Posts orders with wrk, over 20 connections."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 20
SCRIPT = Path(__file__).with_name("orders.lua")


@dataclass(frozen=True)
class Load:
    requests: int
    per_second: float
    p99: float  # milliseconds


def post_orders(port: int, seconds: int) -> Load:
    """Raises RuntimeError if a request failed."""
    url = f"http://127.0.0.1:{port}/orders"
    options = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "-s", str(SCRIPT)]
    done = subprocess.run(["wrk", *options, url], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    if found["errors"]:
        raise RuntimeError(f"{found['errors']} requests failed: {done.stdout}")
    return Load(found["requests"], found["requests"] / found["seconds"], found["p99"])
