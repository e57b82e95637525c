# mypy: disable-error-code="import-not-found,untyped-decorator"
"""Wait until no job is left to run, then print as JSON how each ended, and count the orders."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter

from app.core.database import sync_engine
from app.jobs.table import jobs
from app.models import Order
from sqlalchemy import Connection, select

OURS = jobs.c.queue != "maintenance"


def unfinished(connection: Connection) -> bool:
    left = select(jobs.c.id).where(OURS, jobs.c.status.in_(["pending", "running"])).limit(1)
    return connection.execute(left).first() is not None


def counted(connection: Connection) -> dict[str, object]:
    told = jobs.c.key, jobs.c.status, jobs.c.attempts, jobs.c.crashes, jobs.c.error
    shown = select(jobs.c.id, *told)
    rows = [dict(row._mapping) for row in connection.execute(shown.where(OURS))]
    orders = Counter(connection.scalars(select(Order.item)))
    return {"jobs": {str(row.pop("id")): row for row in rows}, "orders": orders}


def main(limit: float) -> None:
    deadline = time.monotonic() + limit
    with sync_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while unfinished(connection) and time.monotonic() < deadline:
            time.sleep(0.1)
        print(json.dumps(counted(connection)))


if __name__ == "__main__":
    main(float(sys.argv[1]))
