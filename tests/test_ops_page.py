"""The operators' page in a real browser: by keyboard, on a phone, in the dark, with real jobs."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from typing import Literal
from uuid import UUID

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Request, StorageState, expect

from tests.checks import none
from tests.showcase import LIMIT, VIEWS, Shop, enter_key

pytestmark = pytest.mark.renders("arq-apscheduler")

EXPECTED = re.compile(
    r"Password forms|status of 422"
)  # Chromium's advice, and the answer to a wrong filter that the test asks for
WIDTHS = (1200, 320)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
MOST_TABS = 200  # presses of Tab until the element has the focus


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the element has the focus, as a user without a mouse does."""
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
            return
    pytest.fail(f"no key leads to {selector}")


def press(page: Page, selector: str) -> None:
    """Press a button or a link, and wait for the page that it leads to."""
    tab_to(page, selector)
    with page.expect_navigation():
        page.keyboard.press("Enter")


def test_a_dead_job_is_found_and_replayed_by_keyboard(page: Page) -> None:
    press(page, "nav a[href='/ops/jobs']")
    tab_to(page, "#status")
    page.keyboard.type("dead")
    tab_to(page, "#error")
    page.keyboard.type("INSUFFICIENT")
    page.keyboard.press("Enter")
    page.wait_for_url("**/ops/jobs?status=dead&*error=INSUFFICIENT*")
    press(page, "#live-jobs a")
    expect(page.locator("h1")).to_have_text("orders.charge_card")
    expect(page.locator("#error")).to_contain_text("insufficient funds")
    press(page, "#replay")
    expect(page.locator(".notice")).to_have_text("The job is to run again.")
    expect(page.locator(".head .status")).to_have_text("pending")  # its queue is paused
    press(page, "#cancel")
    expect(page.locator(".head .status")).to_have_text("cancelled")


def test_all_dead_jobs_are_replayed_after_a_question(page: Page, shop: Shop) -> None:
    page.goto(f"{shop.url}/ops/jobs?status=dead&task=orders.charge_card")
    expect(page.locator("#live-jobs tbody tr").first).to_contain_text("dead")
    count = page.locator("#live-jobs tbody tr").count()
    press(page, ".pages a[href*='/all/replay']")
    expect(page.locator("h1")).to_have_text(f"Replay {count} jobs?")
    press(page, "#confirm")
    expect(page.locator(".notice")).to_have_text(f"{count} jobs to run again.")
    expect(page.locator("#live-jobs")).to_contain_text("No job is like this.")


def test_a_queue_goes_on_when_it_is_told_to(page: Page) -> None:
    """The jobs that waited in a paused queue run, and the page shows it without a reload."""
    row = page.locator("tr", has=page.get_by_role("link", name="orders", exact=True))
    expect(row.locator(".tag")).to_contain_text("paused")
    button = row.get_by_role("button")
    expect(button).to_have_text("Resume")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".notice")).to_have_text("Queue orders: resumed.")
    expect(row.locator("[data-label=Waiting]")).to_have_text("0")
    expect(page.locator(".problem")).to_contain_text("reports: QUEUES doesn't name it")


def test_a_schedule_runs_and_goes_on_by_keyboard(page: Page) -> None:
    press(page, "nav a[href='/ops/schedules']")
    row = page.locator("tr", has_text="remind_team")
    expect(row.locator(".tag")).to_have_text("paused")
    press(page, "button[aria-label='Run remind_team now']")
    expect(page.locator("h1")).to_have_text("customers.welcome")
    expect(page.locator(".head .status")).to_have_text("succeeded")
    press(page, "nav a[href='/ops/schedules']")
    press(page, "button[aria-label='Resume schedule remind_team']")
    expect(row.locator(".tag")).to_have_count(0)


def test_everybody_can_read_it(page: Page, shop: Shop) -> None:
    """axe finds no problem, no page scrolls sideways, and the browser's console is empty."""
    said, found = list[str](), list[str]()
    page.on("console", lambda message: said.append(f"{page.url}: {message.text}"))
    addresses = paths(page, shop)
    for width, scheme in product(WIDTHS, SCHEMES):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        for address in addresses:
            page.goto(address)
            found += [f"{width} px, {scheme}: {problem}" for problem in problems(page, width)]
    none(found + [line for line in said if not EXPECTED.search(line)])


def paths(page: Page, shop: Shop) -> list[str]:
    """Each view, a job, the login, a question, empty lists, and a page about a wrong filter."""
    page.goto(f"{shop.url}/ops/jobs")
    job = page.locator("#live-jobs a").first.get_attribute("href")
    more = ("login", "jobs/all/cancel", "jobs?task=none", "jobs?since=now", "schedules?after=z")
    return [f"{shop.url}{job}", *(f"{shop.url}/ops/{each}" for each in (*VIEWS, *more))]


def problems(page: Page, width: int) -> Iterator[str]:
    wide = page.evaluate("document.documentElement.scrollWidth")
    if wide > width:
        yield f"{page.url}: {wide} px wide"
    for each in Axe().run(page).response["violations"]:
        yield f"{page.url}: {each['id']}: {[node['html'] for node in each['nodes']]}"


def test_what_somebody_does_survives_a_refresh(page: Page, shop: Shop) -> None:
    page.set_viewport_size({"width": 1000, "height": 400})
    page.goto(f"{shop.url}/ops/jobs")
    page.locator("#task").fill("half a na")
    page.locator("#live-jobs a").nth(12).focus()
    before = page.evaluate("[document.activeElement.id, scrollY]")
    assert before[1] > 0
    page.evaluate("window.sameDocument = true")
    order = {"item": "book", "quantity": 1}
    assert page.request.post(f"{shop.url}/orders", data=order).ok
    expect(page.locator("#live-jobs")).to_contain_text("orders.process_order")
    assert page.evaluate("[document.activeElement.id, scrollY]") == before
    expect(page.locator("#task")).to_have_value("half a na")
    assert page.evaluate("window.sameDocument")


def test_it_rests_while_nobody_looks_and_when_told_to(page: Page) -> None:
    page.clock.install()
    page.reload()
    asked = list[str]()
    page.on("request", lambda each: asked.append(each.url) if is_page(each) else None)
    show(page, hidden=True)
    page.clock.run_for(60_000)
    assert asked == []
    with page.expect_request("**/ops/queues"):
        show(page, hidden=False)
    page.locator("#live").click()
    expect(page.locator("#live")).to_have_attribute("aria-pressed", "false")
    page.wait_for_load_state("networkidle")
    asked.clear()
    page.clock.run_for(60_000)
    assert asked == []


def is_page(request: Request) -> bool:
    return "/static/" not in request.url


def show(page: Page, hidden: bool) -> None:
    page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_it_says_when_it_is_not_up_to_date(page: Page, context: BrowserContext) -> None:
    context.set_offline(True)
    expect(page.locator("#state")).to_have_text("Not up to date: the service doesn't answer")
    context.set_offline(False)
    expect(page.locator("#state")).to_have_text("")


def test_it_says_that_its_job_is_gone(page: Page, shop: Shop) -> None:
    """A prune deletes the job whose page is open."""
    page.goto(f"{shop.url}/ops/jobs?status=succeeded")
    page.locator("#live-jobs a").last.click()
    expect(page.locator("h1")).to_have_text("orders.charge_card")
    with closing(sqlite3.connect(shop.folder / "shop.db", timeout=LIMIT)) as database, database:
        job_id = UUID(page.url.rpartition("/")[2]).hex
        assert database.execute("DELETE FROM jobs WHERE id = ?", [job_id]).rowcount == 1
    expect(page.locator("#state")).to_have_text("Not up to date: no such job")


def test_a_session_that_has_ended_leads_to_the_login_and_back(
    page: Page, context: BrowserContext, shop: Shop
) -> None:
    """When the operator wants it: until then, what is typed stays."""
    page.goto(f"{shop.url}/ops/jobs?status=dead")
    page.locator("#error").fill("half a sentence")
    context.clear_cookies()
    link = page.locator("#state a")
    expect(link).to_have_text("Your session has ended: log in")
    expect(page.locator("#error")).to_have_value("half a sentence")
    link.click()
    enter_key(page)
    page.wait_for_url("**/ops/jobs?status=dead")


def test_a_link_from_another_site_leads_into_the_session(page: Page, shop: Shop) -> None:
    """For example from an alert. The browser sends no strict cookie with the first request."""
    other = shop.url.replace("127.0.0.1", "localhost")
    page.goto(f"{other}/docs")
    page.evaluate("to => { location.href = to; }", f"{shop.url}/ops/processes")
    expect(page.locator("h1")).to_have_text("Processes")


def test_it_works_without_the_script(chromium: Browser, session: StorageState, shop: Shop) -> None:
    with chromium.new_context(java_script_enabled=False, storage_state=session) as context:
        page = context.new_page()
        page.goto(f"{shop.url}/ops/jobs?status=pending")
        page.locator("#live-jobs a").first.click()
        page.locator("#cancel").click()
        expect(page.locator(".head .status")).to_have_text("cancelled")
