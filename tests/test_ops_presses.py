"""What one press on the operators' page does in a real browser, and that it does no more."""

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, expect

from tests.showcase import KEY, Shop

pytestmark = pytest.mark.renders("arq-apscheduler")


def ask(page: Page, shop: Shop, method: str, path: str, **body: Any) -> Any:
    """What another operator does, by REST."""
    headers = {"X-API-Key": KEY}
    answer = page.request.fetch(
        f"{shop.url}{path}", method=method, headers=headers, data=body or None
    )
    assert answer.ok, answer.text()
    return answer.json()["data"]


def paused(page: Page, shop: Shop) -> set[str]:
    return {each["queue"] for each in ask(page, shop, "GET", "/queues") if each["paused_at"]}


def forms_of(page: Page) -> list[str]:
    """The addresses to which the page sends forms from now on."""
    sent = list[str]()

    def note(request: Request) -> None:
        if request.method == "POST":
            sent.append(request.url)

    page.on("request", note)
    return sent


def press(page: Page) -> None:
    page.mouse.down()
    page.mouse.up()


def press_again_at_once(page: Page, button: Locator) -> None:
    """The second press is at the same place, as soon as the next page says what the first did.

    Until then the page's animations stand still, so that a slow machine is as quick as a hand.
    """
    button.hover()
    time = page.context.new_cdp_session(page)
    time.send("Animation.enable")
    time.send("Animation.setPlaybackRate", {"playbackRate": 0})
    for _ in range(2):
        press(page)
        expect(page.locator(".notice")).to_be_visible()
    time.send("Animation.setPlaybackRate", {"playbackRate": 1})


def test_a_double_click_pauses_one_queue(page: Page, shop: Shop) -> None:
    before = paused(page, shop)
    pause = page.get_by_role("button", name=re.compile("^Pause queue ")).last
    name = (pause.get_attribute("aria-label") or "").removeprefix("Pause queue ")
    sent = forms_of(page)
    press_again_at_once(page, pause)
    with page.expect_response("**/ops/queues"):
        pass
    assert (paused(page, shop), len(sent)) == (before | {name}, 1)
    page.get_by_role("button", name=f"Resume queue {name}").click()
    expect(page.locator(".notice")).to_have_text(f"Queue {name}: resumed.")
    assert paused(page, shop) == before


def test_a_double_click_runs_one_job(page: Page, shop: Shop) -> None:
    page.goto(f"{shop.url}/ops/schedules")
    jobs = "/jobs?status=any&task=customers.welcome&limit=100"
    before, sent = len(ask(page, shop, "GET", jobs)), forms_of(page)
    page.get_by_role("button", name="Run remind_team now").hover()
    with shop.silent():
        with page.expect_request("**/ops/schedules/run?*"):
            press(page)
        press(page)
    expect(page.locator(".notice")).to_have_text("A job of remind_team is submitted.")
    assert (len(ask(page, shop, "GET", jobs)) - before, len(sent)) == (1, 1)


def test_the_focus_stays_on_the_schedule_where_it_is(page: Page, shop: Shop) -> None:
    """Another operator creates a schedule that is listed before it."""
    page.goto(f"{shop.url}/ops/schedules")
    button = page.get_by_role("button", name="Run remind_team now")
    button.focus()
    every = {"id": "a_first", "task": "customers.welcome", "args": {"customer": "ada"}}
    ask(page, shop, "POST", "/schedules", **every, trigger={"kind": "interval", "hours": 5})
    expect(page.locator("#live-schedules tbody tr").first).to_contain_text("a_first")
    expect(button).to_be_focused()


def test_the_focus_never_moves_to_the_opposite(page: Page, shop: Shop) -> None:
    """Another operator has paused the queue: the key that was to pause it doesn't resume it."""
    page.get_by_role("button", name="Pause queue default").focus()
    ask(page, shop, "POST", "/queues/default/pause")
    resume = page.get_by_role("button", name="Resume queue default")
    expect(resume).to_be_visible()
    expect(resume).not_to_be_focused()


def test_a_button_that_is_held_over_a_refresh_is_pressed(page: Page, shop: Shop) -> None:
    page.get_by_role("button", name="Pause queue notifications").hover()
    with page.expect_response("**/ops/queues") as answer, shop.silent():
        with page.expect_request("**/ops/queues"):
            pass
        page.evaluate("document.querySelector('#live-queues').append('not up to date')")
        page.mouse.down()
    answer.value.finished()
    page.evaluate("new Promise(requestAnimationFrame)")
    page.mouse.up()
    expect(page.locator(".notice")).to_have_text("Queue notifications: paused.")


def test_older_goes_on_where_the_list_ends(page: Page, shop: Shop) -> None:
    """Also when the jobs that it shows have come since the page was loaded."""
    page.goto(f"{shop.url}/ops/jobs?task=orders.process_order")
    made, rows = set[str](), page.locator("#live-jobs tbody a")
    for number in (51, 9):
        made |= {order(page, shop) for _ in range(number)}
        expect(rows.first).to_have_attribute("id", f"job-{newest(page, shop)}")
        expect(page.get_by_role("link", name="Older")).to_be_visible()
    listed = ids(rows)
    page.get_by_role("link", name="Older").click()
    expect(rows).to_have_count(10)
    assert (len(listed), listed | ids(rows)) == (50, made)


def order(page: Page, shop: Shop) -> str:
    job_id: str = ask(page, shop, "POST", "/orders", item="book", quantity=1)["job_id"]
    return job_id


def newest(page: Page, shop: Shop) -> str:
    jobs = "/jobs?status=any&task=orders.process_order&limit=1"
    job_id: str = ask(page, shop, "GET", jobs)[0]["job_id"]
    return job_id


def ids(rows: Locator) -> set[str]:
    found: list[str] = rows.evaluate_all("all => all.map(each => each.id)")
    return {each.removeprefix("job-") for each in found}


def test_more_leads_to_schedules_that_are_new(page: Page, shop: Shop) -> None:
    page.goto(f"{shop.url}/ops/schedules")
    for number in range(51):
        each = {"id": f"z_{number:02}", "task": "customers.welcome", "args": {"customer": "ada"}}
        ask(page, shop, "POST", "/schedules", **each, trigger={"kind": "interval", "hours": 5})
    page.get_by_role("link", name="More").click()
    expect(page.locator("#live-schedules")).to_contain_text("z_50")


def test_it_says_when_the_service_hangs(page: Page, shop: Shop) -> None:
    with shop.silent():
        said = expect(page.locator("#state"))
        said.to_have_text("Not up to date: the service doesn't answer", timeout=20_000)
    expect(page.locator("#state")).to_have_text("")
