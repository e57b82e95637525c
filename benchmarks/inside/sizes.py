"""How much is measured. BENCH_QUICK only shows that every measure runs: its figures say little."""

from __future__ import annotations

import os

QUICK = os.environ.get("BENCH_QUICK") == "1"
ROUNDS = 1 if QUICK else 3


def size(number: int) -> int:
    return max(2, number // 20) if QUICK else number


JOBS = {"noops": size(4_000), "orders": size(2_000)}
POST_SECONDS = 1 if QUICK else 3
IDLE_SECONDS = 2 if QUICK else 10
HOLD_SECONDS = int(os.environ.get("BENCH_HOLD", 6 if QUICK else 60))
