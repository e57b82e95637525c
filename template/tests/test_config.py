"""Wrong settings end a process at once, with one clear line each and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from pydantic import SecretStr

from app.config import Settings

FIELDS = Settings.model_fields
STRONG = {n.upper(): "s" * 24 for n in FIELDS if FIELDS[n].annotation == SecretStr | None} | {
    name: re.sub("//.+@", "//app:strong@", url)
    for name, url in os.environ.items()
    if name.endswith("_URL")
}
STRONG["ALLOWED_HOSTS"] = '["api.example.com"]'


def boot(**env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("API_KEY",)}
    return subprocess.run(
        [sys.executable, "-c", "import app.main"],
        env={**inherited, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({}, "API_KEY must have at least 24 characters in production"),
        ({"API_KEY": "short"}, "API_KEY must have at least 24 characters in production"),
        (
            {name: value for name, value in STRONG.items() if name != "ALLOWED_HOSTS"},
            'ALLOWED_HOSTS must be set in production, to ["*"] where a proxy checks them',
        ),
        (
            STRONG | {"DATABASE_URL": "postgresql://app:change-me@db/app"},
            "DATABASE_URL has a default password: set one of your own in production",
        ),
    ],
)
def test_production_refuses_what_is_unsafe(env: dict[str, str], line: str) -> None:
    ended = boot(ENVIRONMENT="production", **env)
    assert ended.returncode == 1
    assert line in ended.stderr.splitlines()
    assert "Traceback" not in ended.stderr


def test_production_starts_with_strong_secrets() -> None:
    ended = boot(ENVIRONMENT="production", **STRONG)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_queue_that_nothing_carries_is_refused() -> None:
    ended = boot(QUEUES='{"default": "pigeon"}')
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("QUEUES: default goes to 'pigeon', which is none of ")


def test_a_task_whose_queue_nothing_carries_is_refused() -> None:
    carried = {name: backend for name, backend in Settings().queues.items() if name != "orders"}
    ended = boot(QUEUES=json.dumps(carried))
    line = "QUEUES: nothing carries orders, the queue of orders.process_order\n"
    assert (ended.returncode, ended.stderr) == (1, line)


def test_a_wrong_value_names_its_variable() -> None:
    ended = boot(LEASE="soon")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("LEASE: ")
