"""`poe dev` starts all processes. When it ends, all of them end, whatever ended it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import cast

import httpx

from devtools import servers
from devtools.commands import COMMANDS
from tests.engine.devtools.started import Dev, python

NEW_TASK = """
from app.jobs import task


@task()
async def greet(name: str) -> str:
    return f"Hello {name}"


@task(queue="maintenance")
async def wave(name: str) -> str:
    return f"{name} waves"
"""
NEW_SCHEDULE = """
from app.tasks.greetings import wave

SCHEDULES += [Schedule("wave", Interval(seconds=1), wave, ("Ada",))]
"""
SUBMIT = """
import asyncio

from app.core.database import AsyncSessionLocal
from app.jobs import Jobs
from app.tasks.greetings import greet


async def main() -> None:
    async with AsyncSessionLocal() as session:
        job = await Jobs(session).submit(greet, "Ada")
        await session.commit()
        print(job.id)


asyncio.run(main())
"""


def test_dev_runs_the_code_as_it_is_now_and_keeps_its_key(project: Path) -> None:
    """Ctrl-C ends the first start. Closing its terminal ends the second."""
    with Dev(project) as dev:
        dev.until(dev.answers)
        assert dev.order()["result"]["status"] == "processed"
        kept = project / ".dev" / "operator-key"
        key, mode = kept.read_text(), kept.stat().st_mode & 0o777
        assert (dev.value_of("operator key (X-API-Key): "), mode) == (key, 0o600)
        dev.until(lambda: dev.names() == {"dev", "migrate", *COMMANDS})
        assert dev.other_formats() == []
        addresses = {variable: dev.value_of(f"{variable}=") for variable in servers.BROKERS}

        (project / "app" / "tasks" / "greetings.py").write_text(NEW_TASK)
        with (project / "app" / "tasks" / "schedules.py").open("a") as schedules:
            schedules.write(NEW_SCHEDULE)
        orders = project / "app" / "tasks" / "orders.py"
        orders.write_text(orders.read_text().replace('"processed"', '"as it is now"'))
        dev.until(lambda: status_of_an_order(dev) == "as it is now")
        submitted = python(project, "-c", SUBMIT)
        assert dev.succeeded(submitted.stdout.strip())["result"] == "Hello Ada"
        dev.until(lambda: result_of_last_tick(dev, "wave", key) == "Ada waves")
        assert dev.ends_by(dev.signalled(signal.SIGINT)) == 0

    screen, terminal = pty.openpty()
    os.set_blocking(screen, False)
    with Dev(project, terminal=terminal) as dev:
        os.close(terminal)
        shown: list[str] = []

        def has_started() -> bool:
            with suppress(BlockingIOError):
                shown.append(os.read(screen, 65536).decode())
            return "startup complete" in "".join(shown)

        dev.until(has_started)
        text = "".join(shown)
        assert f"operator key (X-API-Key): {key}" in text
        assert re.search(r"\x1b\[\d+mapi +\|\x1b\[0m ", text), "names have colours on a terminal"
        for variable, address in addresses.items():
            assert f"{variable}={address}" in text
        assert dev.ends_by(lambda: os.close(screen)) == 0


def status_of_an_order(dev: Dev) -> str | None:
    """The status of a new order; None if the API stopped and closed the connection."""
    with suppress(httpx.TransportError):
        return str(dev.order()["result"]["status"])
    return None


def result_of_last_tick(dev: Dev, schedule_id: str, key: str) -> object:
    """A clock that runs the code before doesn't know the schedule's task, and leaves it alone."""
    answer = dev.api.get(f"/schedules/{schedule_id}", headers={"X-API-Key": key})
    job_id = answer.json()["data"]["last_job_id"]
    return job_id and dev.api.get(f"/jobs/{job_id}").json()["data"]["result"]


def test_a_process_gets_only_what_it_uses(project: Path) -> None:
    """Values come from the environment or from `.env`, which the process itself doesn't read."""
    (project / ".env").write_text("API_KEY=of the file\nMAX_JOBS=3\nPOSTGRES_PASSWORD=x\n")
    for name, expected, port in [("api", "of the file", "9100"), ("migrate", "", "")]:
        env = environment_of(name, project, METRICS_PORT="9100")
        assert (env["API_KEY"], env["MAX_JOBS"], env["ENV_FILE"]) == (expected, "3", "")
        assert env["METRICS_PORT"] == port
        assert "POSTGRES_PASSWORD" not in env
        brokers = {env[variable] for variable in servers.BROKERS}
        assert name == "api" or brokers <= {""}
    for name in {*COMMANDS} - {"api"}:
        assert environment_of(name, project)["API_KEY"] == ""


def test_a_reload_waits_no_longer_for_jobs_than_the_owner_wants(project: Path) -> None:
    assert environment_of("api", project)["STOP_GRACE"] == "2"
    (project / ".env").write_text("STOP_GRACE=9\n")
    assert environment_of("api", project)["STOP_GRACE"] == "9"


def environment_of(name: str, project: Path, **env: str) -> dict[str, str]:
    """The variables that `poe dev` gives to this process."""
    script = "import json, sys; from devtools.supervisor import environment_of as of"
    addresses = {variable: os.environ[variable] for variable in servers.BROKERS}
    show = f"{script}; print(json.dumps(of(sys.argv[1])))"
    made = python(project, "-c", show, name, **addresses, **env)
    return cast("dict[str, str]", json.loads(made.stdout))
