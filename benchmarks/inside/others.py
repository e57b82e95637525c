"""Other code to compare with: the pattern document's, and other queues on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.subject import Subject

CONTROL = {
    "arq": {
        "api": "uvicorn control.arq_api:app",
        "worker": "arq control.arq_worker.WorkerSettings",
    },
    "celery": {
        "api": "uvicorn control.celery_api:app",
        "worker": "celery -A control.celery_app worker --loglevel=info",
    },
}
WAITING = {
    "pgqueuer": "SELECT count(*) FROM pgqueuer",
    "oban": "SELECT count(*) FROM oban_jobs WHERE state <> 'completed'",
    "procrastinate": "SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'",
}
TABLES = {
    "pgqueuer": ("pgqueuer", "pgqueuer_log"),
    "oban": ("oban_jobs",),
    "procrastinate": ("procrastinate_jobs",),
}


class Control(Subject):
    changing = ("orders",)
    setup = ("control.orders",)
    worker = "worker"

    def __init__(self, backend: str, folder: Path, database: str, **env: str) -> None:
        self.title = {"arq": "plain ARQ", "celery": "plain Celery"}[backend]
        self.drive = (f"control.{backend}_drive",)
        super().__init__("control", backend, folder, database, number=1, **env)

    def command(self, process: str) -> str:
        return CONTROL[self.backend][process]

    def left(self, what: str) -> int:
        """Only the broker knows of no-ops. Celery's lists lack those that have begun."""
        if what == "orders":
            return super().left(what)
        redis: Any = self.redis
        if self.backend == "arq":
            return int(redis.zcard("arq:queue"))
        return int(redis.llen("celery") + redis.hlen("unacked"))


class Peer(Subject):
    worker = "worker"

    def __init__(self, name: str, folder: Path, database: str) -> None:
        self.title, self.python = name, str(peers_python())
        self.drive, self.setup = ("peers", name), ("peers", name, "setup")
        self.waiting, self.changing = WAITING[name], (*TABLES[name], "orders")
        super().__init__(name, name, folder, database)
        self.env.pop("REDIS_URL", None)  # peers don't use Redis

    def command(self, process: str) -> str:
        return f"{self.python} -m peers {self.name} {process}"


@cache
def peers_python() -> Path:
    """The Python of the peers' environment, with the service's SQLAlchemy and psycopg."""
    folder = Path("..", "peers").resolve()
    python, uv = folder / "bin" / "python", os.environ.get("UV", "uv")
    make: list[str | Path] = [uv, "venv", "-q", "--allow-existing", "--python", sys.executable]
    subprocess.run([*make, folder], check=True)
    same = [f"sqlalchemy[asyncio]=={version('sqlalchemy')}"]
    same += [f"psycopg[binary]=={version('psycopg')}", "-r", "peers/requirements.txt"]
    subprocess.run([uv, "pip", "install", "-q", "--python", python, *same], check=True)
    return python
