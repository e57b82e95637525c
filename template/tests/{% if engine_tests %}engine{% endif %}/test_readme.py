"""The README's code and commands work unchanged."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.service import ROOT, Service

BLOCK = re.compile(r"^```(python|sh)\n(.+?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS = f"{Path(sys.executable).parent}/"
README = BLOCK.findall((ROOT / "README.md").read_text("utf-8"))


def block(kind: str, part: str) -> str:
    (found,) = [code for k, code in README if k == kind and part in code]
    return str(found)


async def run(service: Service, *command: str) -> str:
    """The output of a command. An HTTP error makes `curl` in it fail."""
    home = {"CURL_HOME": str(service.folder), "DATABASE_URL": service.env["DATABASE_URL"]}
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=service.folder,
        env=os.environ | home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


async def test_a_newcomer_can_copy_all_of_it(tmp_path: Path) -> None:
    async with Service.alone(tmp_path) as service:
        for name in ("app/tasks/greetings.py", "app/api/greetings.py"):
            (tmp_path / name).write_text(block("python", f"# {name}\n"))
        (tmp_path / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
        (tmp_path / ".dev").mkdir()
        (tmp_path / ".dev" / "operator-key").write_text(os.environ["API_KEY"])
        service.start_all()

        greeting = await service.client.post("/greetings/Ada")
        job = await service.job_is(greeting.json()["job_id"], "succeeded")
        assert (job["task"], job["result"]) == ("greetings.greet", "Hello Ada")

        submitted = await run(service, sys.executable, "-c", block("python", "asyncio.run(main())"))
        await service.job_is(submitted.strip(), "succeeded")

        here = f"127.0.0.1:{service.port}"
        schedules = block("sh", "/schedules/").replace("localhost:8000", here)
        said = await run(service, "sh", "-e", "-c", schedules.replace("uv run ", PROGRAMS))
        assert "hourly_mail is paused" in said
        steering = block("sh", "jobs doctor").replace("uv run ", PROGRAMS)
        said = await run(service, "sh", "-e", "-c", f"cd {shlex.quote(str(ROOT))}\n{steering}")
        assert "no fault" in said and "replayed 0 jobs" in said
        (order,) = [line for line in block("sh", "poe dev").splitlines() if "POST" in line]
        assert '"status":"pending"' in await run(
            service, "sh", "-c", order.replace("localhost:8000", here)
        )
