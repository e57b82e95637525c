"""Fixtures of the operators' page: a running service, and a browser that is logged in."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, expect

from tests.conftest import Project
from tests.showcase import Shop, browser, log_in, open_shop

TIMEOUT = 20_000  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=TIMEOUT)  # the context's own timeout isn't for these
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def shop(
    chromium: Browser, project: Project, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    assert chromium.is_connected()
    with open_shop(project.folder, tmp_path_factory.mktemp("shop") / "service") as opened:
        opened.fill()
        yield opened


@pytest.fixture(scope="module")
def session(chromium: Browser, shop: Shop) -> StorageState:
    """An operator logs in once, by keyboard, for all tests, because tries to log in have a rate."""
    with chromium.new_context() as context:
        log_in(context.new_page(), shop)
        return context.storage_state()


@pytest.fixture
def context(chromium: Browser, session: StorageState) -> Iterator[BrowserContext]:
    with chromium.new_context(storage_state=session) as opened:
        opened.set_default_timeout(TIMEOUT)
        yield opened


@pytest.fixture
def page(context: BrowserContext, shop: Shop) -> Page:
    opened = context.new_page()
    opened.goto(f"{shop.url}/ops/queues")
    return opened
