# mypy: disable-error-code="import-not-found,untyped-decorator"
"""Fires each alert in a real Prometheus by a real fault, and runs the dashboard's queries there.

It runs as a test of a rendered service that has an ARQ worker and a scheduler, on PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import fault_tasks
import httpx
import pytest
from app.core.concurrency import in_background
from devtools import servers
from devtools.processes import free_port, spawn, stop

from tests.conftest import STARTED
from tests.service import ROOT, Service, eventually

TASKS = Path(__file__).with_name("fault_tasks.py")
RULES = (ROOT / "observability" / "alerts.yml").read_text("utf-8")
DASHBOARD = json.loads((ROOT / "observability" / "dashboard.json").read_text("utf-8"))
ALERTS = set(re.findall(r"alert: (\w+)", RULES))
FOR = re.compile(r"\bfor: \w+")
CONFIG = """
global: {scrape_interval: 1s, evaluation_interval: 500ms}
rule_files: [alerts.yml]
scrape_configs:
  - job_name: jobs
    scrape_timeout: 1s
    file_sd_configs: [{files: [targets.json]}]
"""
FOUND = ("api", "scheduler")  # without its workers
PROCESSES = (*FOUND, "worker", "worker-2")
LIMIT = 60  # seconds


class Prometheus:
    """A Prometheus with the service's rules. A condition needs to hold for one second only."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        folder.mkdir()
        self.folder, self.ports = folder, ports
        (folder / "alerts.yml").write_text(FOR.sub("for: 1s", RULES))
        (folder / "prometheus.yml").write_text(CONFIG)
        self.find(*FOUND)
        address = f"127.0.0.1:{free_port()}"
        command = [shutil.which("prometheus") or "prometheus", f"--web.listen-address={address}"]
        command += ["--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        self.process = spawn(command, cwd=folder, log=folder / "log")
        self.client = httpx.AsyncClient(base_url=f"http://{address}/api/v1/", timeout=10)
        self.fired: set[str] = set()

    def find(self, *names: str) -> None:
        """Scrape these processes alone, as if the others' containers had ended."""
        found = [
            {"targets": [f"127.0.0.1:{self.ports[name]}"], "labels": {"process": name}}
            for name in names
        ]
        written = self.folder / "new"
        written.write_text(json.dumps(found))
        written.rename(self.folder / "targets.json")

    async def ask(self, path: str, **parameters: str) -> Any:
        answer = await self.client.get(path, params=parameters)
        answer.raise_for_status()
        return answer.json()["data"]

    async def query(self, expression: str) -> list[Any]:
        found: list[Any] = (await self.ask("query", query=expression))["result"]
        return found

    async def alerts(self) -> set[str]:
        """The alerts that fire now."""
        found = (await self.ask("alerts"))["alerts"]
        return {each["labels"]["alertname"] for each in found if each["state"] == "firing"}

    async def watch(self) -> None:
        """Note each alert that fires: it may end before the next one fires."""
        while True:
            self.fired |= await self.alerts()
            await asyncio.sleep(0.2)

    async def has_fired(self, *names: str) -> None:
        async def all_have() -> bool:
            return self.fired >= set(names)

        try:
            await eventually(all_have, LIMIT)
        except AssertionError as error:
            error.add_note(f"of {sorted(names)} only {sorted(self.fired)} have fired")
            raise


def start(service: Service, ports: dict[str, int], *names: str) -> None:
    for name in names:
        ports.setdefault(name, free_port())
        service.env["METRICS_PORT"] = str(ports[name])
        service.start(name)


@asynccontextmanager
async def watched(
    service: Service, folder: Path
) -> AsyncIterator[tuple[Prometheus, dict[str, int]]]:
    ports: dict[str, int] = {}
    start(service, ports, *PROCESSES)
    prometheus = Prometheus(folder, ports)
    try:
        yield prometheus, ports
    finally:
        await prometheus.client.aclose()
        stop(prometheus.process)
        for process in service.processes.values():
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
async def service(tmp_path: Path, broker: servers.Child) -> AsyncIterator[Service]:
    Service.probes.append(TASKS)
    assert broker.pid
    async with Service.alone(tmp_path / "service", REDIS_URL=os.environ["REDIS_URL"]) as made:
        yield made


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[servers.Child]:
    """A broker for this test alone, because the test ends it."""
    started = servers.start("REDIS_URL", tmp_path)
    yield started
    servers.end("REDIS_URL", started)


@pytest.fixture
def database(pytestconfig: pytest.Config) -> servers.Child:
    """The PostgreSQL of this run, which the test ends."""
    return pytestconfig.stash[STARTED]["DATABASE_URL"]


async def is_healthy(prometheus: Prometheus) -> None:
    async def all_are_up() -> bool:
        try:
            return len(await prometheus.query('up{job="jobs"} == 1')) == len(FOUND)
        except httpx.HTTPError:  # it hasn't started yet
            return False

    async def all_are_carried() -> bool:
        return bool(await prometheus.query("min(jobs_queue_processes) > 0"))

    async def nothing_fires() -> bool:
        return not await prometheus.alerts()

    for each in (all_are_up, all_are_carried, nothing_fires):
        await eventually(each)


def queries() -> list[str]:
    """The dashboard's queries. A variable in them matches everything."""
    expressions = [t["expr"] for panel in DASHBOARD["panels"] for t in panel["targets"]]
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    for name in names:
        expressions = [each.replace(f"${name}", ".*") for each in expressions]
    return [each.replace("$__rate_interval", "1m") for each in expressions]


async def has_all_that_is_shown(prometheus: Prometheus) -> None:
    asked = queries()
    assert len(asked) > 15
    for expression in asked:
        assert "$" not in expression
        # A rate needs two scrapes.
        found = await eventually(partial(prometheus.query, expression))
        assert all(each["metric"].get("job") == "jobs" for each in found), expression
    for variable in DASHBOARD["templating"]["list"]:
        text = variable["query"]["query"]
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", text).groups()  # type: ignore[union-attr]
        assert await prometheus.ask(f"label/{label}/values", **{"match[]": metric}), text


async def test_each_alert_fires(
    service: Service, broker: servers.Child, database: servers.Child, tmp_path: Path
) -> None:
    async with watched(service, tmp_path / "prometheus") as (prometheus, ports):
        await is_healthy(prometheus)
        async with in_background(prometheus.watch()):
            await a_task_holds_a_loop(service)
            await a_task_dies(service)
            prometheus.find(*PROCESSES)  # only now, as after a deploy
            await prometheus.has_fired("JobsDead")  # before the process that counted it ends
            await a_worker_freezes(service, ports)
            await prometheus.has_fired("JobsLeasesLost", "JobsProcessDown")
            await has_all_that_is_shown(prometheus)
            await no_worker_is_left(service)
            prometheus.find(*FOUND)
            servers.end("REDIS_URL", broker)
            await service.client.post("/orders", json={"item": "tea", "quantity": 1})
            await prometheus.has_fired(*ALERTS - {"JobsDatabaseAway", "JobsUnwatched"})
            servers.end("DATABASE_URL", database)
            await prometheus.has_fired("JobsDatabaseAway")
            assert "JobsUnwatched" not in prometheus.fired
            service.stop("api")
            await prometheus.has_fired(*ALERTS)


async def a_task_dies(service: Service) -> None:
    await service.job_is(await service.submit(fault_tasks.echo, "a"), "succeeded")
    await service.job_is(await service.submit(fault_tasks.dies), "dead")


async def a_task_holds_a_loop(service: Service) -> None:
    """Block the scheduler's loop: the ticks of each second are late, and then too late."""
    each_second = {"kind": "interval", "seconds": 1}
    schedule = {"id": "often", "task": "faults.echo", "trigger": each_second, "args": {"text": "a"}}
    made = await service.client.post(
        "/schedules", json=schedule | {"misfire_grace": 5}, headers=service.operator
    )
    assert made.status_code == 201, made.text
    await service.job_is(await service.submit(fault_tasks.holds_the_loop), "running")


async def a_worker_freezes(service: Service, ports: dict[str, int]) -> None:
    """Freeze a worker while it runs a job: another worker takes the job back."""
    service.stop("worker")
    job_id = await service.submit(fault_tasks.works)
    await service.job_is(job_id, "running")
    os.killpg(service.processes["worker-2"].pid, signal.SIGSTOP)
    start(service, ports, "worker")
    await service.job_is(job_id, "succeeded")


async def no_worker_is_left(service: Service) -> None:
    os.killpg(service.processes["worker-2"].pid, signal.SIGCONT)
    service.stop("worker", "worker-2")
    long_ago = datetime.now(UTC) - timedelta(minutes=2)
    await service.submit(fault_tasks.echo, "b", at=long_ago)
