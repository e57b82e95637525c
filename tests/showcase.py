"""Runs a rendered service with jobs and queues to look at, and opens a browser for it."""

import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.checks import missing
from tests.ports import free_port
from tests.renders import ROOT, uv_command, uv_environment

KEY = "an operator's key of the tests"
LIMIT = 90  # seconds, on a busy machine
VIEWS = ("queues", "jobs", "schedules", "processes")


@dataclass(frozen=True)
class Shop:
    """A running service. `fill` adds jobs that have ended, that run and that wait."""

    url: str
    folder: Path
    env: dict[str, str]

    def fill(self) -> None:
        command = [str(self.folder / ".venv/bin/python"), "-m", "app.tasks.shop"]
        subprocess.run(command, cwd=self.folder, env=self.env, check=True, timeout=LIMIT)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """The API answers nothing meanwhile, and afterwards all that it was asked."""
        lines = (self.folder / ".dev/processes").read_text().splitlines()
        (group,) = [int(line.split()[0]) for line in lines if line.endswith(" api")]
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)


@contextmanager
def open_shop(service: Path, folder: Path) -> Iterator[Shop]:
    """A copy of this rendered service, started by `poe dev`. It uses the original's environment."""
    subprocess.run([uv_command(), "sync", "-q"], cwd=service, env=uv_environment(), check=True)
    shutil.copytree(service, folder, ignore=shutil.ignore_patterns(".venv", ".dev"))
    (folder / ".venv").symlink_to(service / ".venv")
    shutil.copy(ROOT / "tests/inside/shop.py", folder / "app/tasks")
    port = free_port()
    path = os.pathsep.join([str(service / ".venv/bin"), os.environ["PATH"]])
    own = {"PATH": path, "PORT": str(port), "API_KEY": KEY, "DATABASE_URL": "sqlite:///shop.db"}
    own |= {"STOP_GRACE": "1", "PYTHONPATH": str(folder)}  # the copy's modules, not the original's
    shop = Shop(f"http://127.0.0.1:{port}", folder, uv_environment() | own)
    with (folder / "dev.log").open("wb") as log:
        command = [str(folder / ".venv/bin/python"), "-m", "devtools.dev"]
        process = subprocess.Popen(
            command, cwd=folder, env=shop.env, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_until_ready(shop, process)
            yield shop
        finally:
            process.terminate()
            process.wait(LIMIT)


def _wait_until_ready(shop: Shop, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            urllib.request.urlopen(f"{shop.url}/health/ready")
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                log = (shop.folder / "dev.log").read_text("utf-8", "replace")
                pytest.fail(f"the service doesn't get ready\n{log[-4000:]}", pytrace=False)
            time.sleep(0.2)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Debian's Chromium: Playwright's own would have to be downloaded."""
    program = shutil.which("chromium")
    if program is None:
        raise missing("Chromium isn't there: install Debian's `chromium`")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


def log_in(page: Page, shop: Shop) -> None:
    page.goto(f"{shop.url}/ops")
    enter_key(page)
    page.wait_for_url("**/ops/queues")


def enter_key(page: Page) -> None:
    """Type the key at once: its field has the focus as soon as the page is drawn."""
    expect(page.locator("#key")).to_be_focused()
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
