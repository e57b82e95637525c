"""Takes back what a dead host held, and ends jobs whose task no host has. Any number may watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import Row, select

from app.config import get_settings
from app.core.control import control
from app.core.heartbeat import heartbeat
from app.jobs import claims
from app.jobs.contract import registry
from app.jobs.relay import to_the_end
from app.jobs.table import Status

log = structlog.get_logger(__name__)

VOUCH_EVERY = 60  # seconds, or a twelfth of UNKNOWN_TASK_GRACE


class _Watch:
    def __init__(self) -> None:
        settings = get_settings()
        self._lease, self._interval = settings.lease, settings.relay_interval
        self._vouch_every = min(VOUCH_EVERY, settings.unknown_task_grace / 12)
        self._looked, self._judges, self._vouched = time.monotonic(), 0.0, float("-inf")

    async def step(self) -> None:
        if self._sees():
            _report(await control(claims.take_back))
        else:
            await control(lambda connection: connection.execute(select(1)))
        self._looked = time.monotonic()
        if time.monotonic() - self._vouched > self._vouch_every:
            await control(lambda connection: claims.vouch(connection, registry()))
            _report(await control(claims.end_unknown))
            self._vouched = time.monotonic()

    def _sees(self) -> bool:
        """Not after a while without the database: nobody could extend leases, and now they will."""
        now = time.monotonic()
        if now - self._looked > self._interval + self._lease / 3:
            self._judges = now + self._lease / 2
        return now >= self._judges


async def watch() -> None:
    """Until it is cancelled. A database that is away or has no tables yet is waited for."""
    each = _Watch()
    while True:
        try:
            await to_the_end(each.step())
        except Exception as error:
            log.warning("watch failed, trying again", error=repr(error).splitlines()[0])
        heartbeat("relay")
        await asyncio.sleep(get_settings().relay_interval)


def _report(rows: Sequence[Row[Any]]) -> None:
    for row in rows:
        if row.status == Status.DEAD:
            log.error("job dead", job_id=str(row.id), task=row.task, error=row.error)
