"""Input that gets into the log neither controls a terminal nor forges a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from app.core.logging import LONGEST

EVIL = r"\x1b[31mred\nforged: line\r\x9b\u202e\ud800"
LOGS = f"""
import logging, structlog
from app.core.logging import configure_logging

configure_logging()
log, other = structlog.get_logger("ours"), logging.getLogger("uvicorn.error")
log.info("{EVIL}", to="{EVIL}")
other.info("%s", "{EVIL}")
try:
    secret = "TOPSECRET"
    raise ValueError("{EVIL}")
except ValueError:
    log.exception("{EVIL}")
    other.exception("{EVIL}")
"""


LONG = """
import structlog
from app.core.logging import configure_logging

configure_logging()
try:
    raise ValueError("a" * 1_000_000)
except ValueError as error:
    structlog.get_logger("ours").exception("long", said=str(error))
"""


MEANT = """
import structlog
from datetime import timedelta
from app.core.logging import configure_logging
from app.jobs import NonRetryable, RetryLater

configure_logging()
for error in (RetryLater("why", after=timedelta(1)), NonRetryable("never"), RuntimeError("no")):
    try:
        raise error
    except Exception as raised:
        structlog.get_logger("ours").warning("job.failed", error=str(raised), exc_info=raised)
"""


ASKED = """
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
import httpx, urllib3
from app.core.logging import configure_logging

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.path, flush=True)  # the process ends with the last answer
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_): ...

configure_logging()
server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/?token=TOPSECRET"
httpx.get(url, trust_env=False)
urllib3.request("GET", url)
"""


def logged(as_json: bool, program: str = LOGS) -> str:
    env = {**os.environ, "LOG_JSON": str(as_json)}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_a_line_is_ours_and_printable(as_json: bool) -> None:
    lines = logged(as_json).split("\n")
    assert [line for line in lines if line.startswith("forged")] == []
    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if "TOPSECRET" in line and "secret =" not in line] == []
    assert sum("ValueError: " in line for line in lines) == 2


def test_a_traceback_is_indented() -> None:
    beginnings = {line[:2] for line in logged(as_json=False).splitlines()}
    assert beginnings == {"20", "  "}


def test_json_is_one_line_each() -> None:
    events = [json.loads(line)["event"] for line in logged(as_json=True).splitlines()]
    assert len(events) == 4


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_long_is_cut_and_says_so(as_json: bool) -> None:
    text = logged(as_json, LONG)
    assert len(text) < 3 * LONGEST
    assert text.count("(cut: 1000") == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_errors_that_a_task_raises_on_purpose_have_no_traceback(as_json: bool) -> None:
    said = logged(as_json, MEANT)
    assert [said.count(text) for text in ("why", "never", "Traceback")] == [1, 1, 1]
    assert "RuntimeError: no" in said


def test_no_client_logs_the_addresses_that_it_asks() -> None:
    """An address may have a token in its query. At this level each library logs all that it can."""
    env = {**os.environ, "LOG_LEVEL": "DEBUG"}
    done = subprocess.run([sys.executable, "-c", ASKED], env=env, capture_output=True, text=True)
    assert done.stdout == "/?token=TOPSECRET\n" * 2, done.stderr
    assert "TOPSECRET" not in done.stderr
