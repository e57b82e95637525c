"""Scrapes the metrics of a process under test, as Prometheus does."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from devtools.processes import free_port
from tests.service import START_LIMIT, Service, eventually


@dataclass(frozen=True)
class Scrape:
    """The samples of one answer, by name and labels."""

    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float:
        """The value of one sample; 0 if it is missing."""
        return self.samples.get((name, frozenset(labels.items())), 0)

    def labels(self, name: str) -> list[dict[str, str]]:
        return [dict(labels) for each, labels in self.samples if each == name]


def start_scraped(service: Service, *names: str) -> dict[str, int]:
    """Start processes that serve metrics; returns the port of each."""
    ports = {}
    for name in names:
        ports[name] = free_port()
        service.env["METRICS_PORT"] = str(ports[name])
        service.start(name)
    return ports


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
