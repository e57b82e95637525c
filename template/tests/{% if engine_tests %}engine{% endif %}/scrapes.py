"""A service whose processes serve metrics, and scrapes of them as Prometheus makes them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from app.config import get_settings
from app.core.database import async_url
from devtools.commands import COMMANDS, HOSTS
from devtools.processes import free_port
from tests.engine.jobs.schedule_rows import put_off_ticks
from tests.engine.processes import family
from tests.service import START_LIMIT, Service, eventually

QUEUES = dict(zip(get_settings().queues, cycle(HOSTS), strict=False))
# One queue for each process that runs jobs.
QUEUE_OF = {HOSTS[backend]: queue for queue, backend in QUEUES.items()}


@dataclass(frozen=True)
class Scrape:
    """The samples of one answer, by name and labels."""

    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float:
        """The value of one sample; 0 if it is missing."""
        return self.samples.get((name, frozenset(labels.items())), 0)

    def labels(self, name: str) -> list[dict[str, str]]:
        return [dict(labels) for each, labels in self.samples if each == name]


class Scraped(Service):
    """A service each of whose processes serves metrics."""

    metrics: dict[str, int]

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A session on its database."""
        engine = create_async_engine(async_url(self.env["DATABASE_URL"]))
        async with AsyncSession(engine) as opened:
            yield opened
        await engine.dispose()

    async def steer(self, path: str) -> None:
        """Ask for a change, as an operator does."""
        (await self.client.post(path, headers=self.operator)).raise_for_status()

    async def total(self, name: str, **labels: str) -> float:
        """The sum of what its processes have counted."""
        return sum([(await scrape(port)).value(name, **labels) for port in self.metrics.values()])


@asynccontextmanager
async def scraped_service(folder: Path, **env: str) -> AsyncIterator[Scraped]:
    """Each of its processes that run jobs has a queue of its own. No tick comes by itself."""
    async with Scraped.alone(folder, QUEUES=json.dumps(QUEUES), **env) as service:
        async with service.session() as session:
            await put_off_ticks(session)
        service.metrics = start_scraped(service, *COMMANDS)
        yield service


def start_scraped(service: Service, *names: str) -> dict[str, int]:
    """Start processes that serve metrics; returns the port of each."""
    ports = {}
    for name in names:
        ports[name] = free_port()
        service.env["METRICS_PORT"] = str(ports[name])
        service.start(name)
    return ports


def listening(pid: int) -> set[tuple[str, int]]:
    """The addresses at which a process and its children listen."""
    found = [connection for each in family(pid) for connection in each.net_connections("inet")]
    return {tuple(each.laddr) for each in found if each.status == psutil.CONN_LISTEN}  # type: ignore[misc]


async def scrape(port: int) -> Scrape:
    """Scrape a process. It waits until the process serves its metrics."""

    async def answer() -> str | None:
        async with httpx.AsyncClient(timeout=10) as client:
            try:
                return (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            except httpx.TransportError:
                return None

    families = text_string_to_metric_families(await eventually(answer, START_LIMIT))
    return Scrape(
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }
    )


async def counted(port: int, expected: float, name: str, **labels: str) -> None:
    """Wait until the sample has this value."""

    async def reached() -> bool:
        return (await scrape(port)).value(name, **labels) == expected

    await eventually(reached)
