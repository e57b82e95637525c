"""A type checker knows a task's arguments: exactly the marked lines below are wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.service import ROOT

CODE = """
from uuid import UUID
from sqlalchemy.ext.asyncio import AsyncSession
from app.jobs import Job, Jobs, SyncJobs, current_job, task
from app.tasks.notifications import send_email
from app.tasks.orders import process_order

@task()
async def count(word: str, times: int = 1) -> int:
    return len(word) * times

async def submit(jobs: Jobs, db: AsyncSession, order_id: UUID) -> None:
    order: Job[dict[str, str]] = await jobs.submit(process_order, order_id, key="a")
    counted: Job[int] = await jobs.submit(count, "a")
    await jobs.submit(count, "a", 2)
    sent: dict[str, str] = send_email("a@example.com", "hello")
    done: dict[str, str] = await process_order(db, order_id)
    await jobs.submit(process_order, "a")  # wrong
    await jobs.submit(process_order)  # wrong
    await jobs.submit(count, 1)  # wrong
    await jobs.submit(count, "a", 2, 3)  # wrong
    await jobs.submit(count, "a", key=1)  # wrong
    other: Job[str] = await jobs.submit(count, "a")  # wrong
    waiting: int = (await jobs.queues())[0].waiting
    (await jobs.get(counted.id)).attempts = 0  # wrong
    current_job().attempt = 0  # wrong

def submit_from_sync(jobs: SyncJobs, order_id: UUID) -> None:
    order: Job[dict[str, str]] = jobs.submit(process_order, order_id, key="a")
    counted: Job[int] = jobs.submit(count, "a")
    jobs.submit(count, 1)  # wrong
    jobs.submit(count, "a", key=1)  # wrong
"""


def test_wrong_arguments_are_found_before_they_run(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text(CODE)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {int(number) for number in re.findall(r"code\.py:(\d+): error", checked.stdout)}
    wrong = {number for number, line in enumerate(CODE.splitlines(), 1) if "# wrong" in line}
    assert found == wrong, checked.stdout + checked.stderr
