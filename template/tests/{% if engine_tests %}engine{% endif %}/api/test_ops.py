"""What `/ops` shows to operators, and what its buttons do."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import httpx
import pytest

from app.jobs import Status, finding
from app.jobs.table import db_time
from app.ops import jobs as listing
from tests.engine import probes
from tests.engine.api.ops import log_in, press, send, text_of
from tests.engine.jobs.rows import statuses, submit
from tests.service import Service

DEAD: dict[str, Any] = {
    "status": Status.DEAD,
    "finished_at": db_time(0),
    "error": "ValueError: no such card",
}

pytestmark = pytest.mark.usefixtures("no_other_jobs")


def ids(text: str) -> set[str]:
    return set(re.findall(r'id="job-([0-9a-f-]{36})"', text))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, {"dead", "waiting", "other"}),
        ({"status": "dead"}, {"dead"}),
        ({"task": "probes.echo"}, {"waiting", "dead"}),
        ({"queue": "orders"}, {"other"}),
        ({"key": "the key"}, {"waiting"}),
        ({"error": "NO SUCH"}, {"dead"}),
        ({"status": " ", "task": "", "since": "2020-01-01T00:00"}, {"dead", "waiting", "other"}),
        ({"until": "2020-01-01T00:00:00"}, set()),
    ],
)
async def test_jobs_are_found(page: httpx.AsyncClient, query: Any, found: set[str]) -> None:
    made = {
        "dead": await submit(probes.echo, "a", **DEAD),
        "waiting": await submit(probes.echo, "b", key="the key"),
        "other": await submit(probes.hopeless, queue="orders"),
    }
    seen = ids(await text_of(page, "/ops/jobs", **query))
    assert seen == {str(made[name]) for name in found}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "no"),
        ("since", "now"),
        ("since", "0001-01-01T00:00:00+14:00"),
        ("until", "9999-12-31T23:59:59"),
        ("key", "\0"),
        ("after", "1"),
    ],
)
async def test_a_wrong_filter_is_named(page: httpx.AsyncClient, name: str, value: str) -> None:
    assert f"{name}: " in await text_of(page, "/ops/jobs", 422, **{name: value})


async def test_jobs_come_in_pages(page: httpx.AsyncClient) -> None:
    made = {str(await submit(probes.echo, "hello")) for _ in range(60)}
    first = await text_of(page, "/ops/jobs", status="pending")
    older = re.search(r'href="([^"]+after=[^"]+)"', first)
    assert older
    second = await text_of(page, older[1].replace("&amp;", "&"))
    assert (len(ids(first)), ids(first) | ids(second)) == (50, made)
    assert "after=" not in second


@pytest.fixture
async def rare(monkeypatch: pytest.MonkeyPatch) -> str:
    """The oldest of eight jobs, where a page of the engine looks at three."""
    monkeypatch.setattr(finding, "EXAMINED", 3)
    made = await submit(probes.echo, "hello", key="rare", created_at=db_time(-10))
    for _ in range(7):
        await submit(probes.echo, "hello")
    return str(made)


async def test_a_rare_job_is_found_behind_many_others(page: httpx.AsyncClient, rare: str) -> None:
    assert ids(await text_of(page, "/ops/jobs", key="rare")) == {rare}


async def test_a_search_that_takes_too_long_can_go_on(
    page: httpx.AsyncClient, rare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PATIENCE", 0)
    text = await text_of(page, "/ops/jobs", key="rare")
    assert "None here; older ones may follow." in text
    older = re.search(r'id="older" href="([^"]+)"', text)
    assert older
    monkeypatch.undo()
    assert ids(await text_of(page, html.unescape(older[1]))) == {rare}


async def test_a_job_shows_what_it_was_given_and_what_became_of_it(page: httpx.AsyncClient) -> None:
    job_id = await submit(probes.echo, "hello", **DEAD)
    text = await text_of(page, f"/ops/jobs/{job_id}")
    for part in ("probes.echo", "hello", "ValueError: no such card", "dead", str(job_id)):
        assert part in text
    assert re.search(r'<time datetime="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ">', text)


async def test_a_dead_job_is_replayed_and_one_that_waits_is_cancelled(
    page: httpx.AsyncClient,
) -> None:
    job_id = await submit(probes.echo, "hello", **DEAD)
    after = await press(page, await text_of(page, f"/ops/jobs/{job_id}"), "replay")
    assert "The job is to run again." in after
    assert await statuses(job_id) == ["pending"]
    after = await press(page, after, "cancel")
    assert "The job is cancelled." in after
    assert await statuses(job_id) == ["cancelled"]
    assert "The job is cancelled." not in await text_of(page, f"/ops/jobs/{job_id}")


async def test_a_change_that_the_status_does_not_allow_is_refused(page: httpx.AsyncClient) -> None:
    job_id = await submit(probes.echo, "hello")
    refused = await send(page, f"/ops/jobs/{job_id}/replay")
    assert (refused.status_code, "is not dead" in refused.text) == (409, True)
    missing = await send(page, f"/ops/jobs/{uuid4()}/cancel")
    assert (missing.status_code, "no such job" in missing.text) == (404, True)


@pytest.mark.parametrize(("action", "after"), [("replay", "pending"), ("cancel", "cancelled")])
async def test_all_that_a_filter_finds_changes(
    page: httpx.AsyncClient, action: str, after: str
) -> None:
    values: dict[str, Any] = DEAD if action == "replay" else {}
    wanted = [await submit(probes.echo, "a", **values) for _ in range(3)]
    other = await submit(probes.hopeless, **values)
    text = await text_of(page, f"/ops/jobs/all/{action}", task="probes.echo")
    assert f"{action.capitalize()} 3 jobs" in text
    later = await submit(probes.echo, "made after the question", **values)
    before = (await statuses(later))[0]
    assert "3 jobs" in await press(page, text, "confirm")
    assert await statuses(*wanted) == [after] * 3
    assert await statuses(other, later) == [before] * 2


@pytest.mark.parametrize("own", [{}, {"until": "2999-01-01T00:00:00+00:00"}])
async def test_the_filter_stays_as_the_operator_gave_it(
    page: httpx.AsyncClient, own: dict[str, Any]
) -> None:
    """So the list that follows a change, and the one before, show jobs that come later."""
    await submit(probes.echo, "a")
    question = await text_of(page, "/ops/jobs/all/cancel", **own)
    assert question.count("<dt>Until</dt>") == 1
    after = await press(page, question, "confirm")
    for text, link in ((question, "back"), (after, "cancel-all")):
        found = re.search(f'id="{link}" href="([^"]+)"', text)
        assert found and dict(parse_qsl(urlsplit(html.unescape(found[1])).query)) == own


async def test_what_is_left_has_no_job_made_after_the_question(
    page: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "BATCH", 1)
    monkeypatch.setattr(listing, "BATCHES", 2)
    made = [await submit(probes.echo, "a") for _ in range(3)]
    text = await text_of(page, "/ops/jobs/all/cancel")
    later = await submit(probes.echo, "made after the question")
    text = await press(page, text, "confirm")
    assert "2 jobs cancelled so far" in text and "Cancel 1 job?" in text
    await press(page, text, "confirm")
    assert await statuses(*made, later) == ["cancelled"] * 3 + ["pending"]


async def test_where_counting_stopped_it_says_so(
    page: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST", 2)
    [await submit(probes.echo, "a", status=each) for each in ("pending", "running", "running")]
    assert "Cancel 3 or more jobs?" in await text_of(page, "/ops/jobs/all/cancel")
    assert "Cancel 1 job?" in await text_of(page, "/ops/jobs/all/cancel", status="pending")


async def test_one_job_is_not_jobs(page: httpx.AsyncClient) -> None:
    crashed = await submit(probes.echo, "a", crashes=1, **DEAD)
    assert ", 1 crash<" in await text_of(page, f"/ops/jobs/{crashed}")
    text = await text_of(page, "/ops/jobs/all/replay")
    assert re.search(r'id="confirm"[^>]*>Replay 1 job<', text)
    assert "1 job to run again." in await press(page, text, "confirm")


async def test_a_task_that_is_not_there_is_named(page: httpx.AsyncClient) -> None:
    """Jobs of an older release may have the name, and are found by it."""
    named = "This release has no task send_email: is it notifications.send_email?"
    assert named in await text_of(page, "/ops/jobs", task="send_email")
    assert "no task gone.task." in await text_of(page, "/ops/jobs", task="gone.task")
    assert "no task" not in await text_of(page, "/ops/jobs", task="notifications.send_email")
    old = await submit(probes.echo, "a", task="send_email")
    text = await text_of(page, "/ops/jobs", task="send_email")
    assert (ids(text), "no task" in text) == ({str(old)}, False)


async def test_no_more_change_than_were_counted(page: httpx.AsyncClient) -> None:
    made = [await submit(probes.echo, "a", **DEAD) for _ in range(3)]
    answer = await send(page, "/ops/jobs/all/replay", most=2)
    assert answer.status_code == 303
    assert sorted(await statuses(*made)) == ["dead", "pending", "pending"]
    assert (await send(page, "/ops/jobs/all/replay", most=0)).status_code == 422


async def test_nothing_is_offered_where_nothing_can_change(page: httpx.AsyncClient) -> None:
    text = await text_of(page, "/ops/jobs", status="succeeded")
    assert "all that this finds" not in text
    text = await text_of(page, "/ops/jobs/all/replay", status="succeeded")
    assert ("Replay 0 jobs?" in text, 'id="confirm"' in text) == (True, False)


async def test_a_database_that_is_away_is_a_page(tmp_path: Path) -> None:
    url = "postgresql://nobody:nothing@127.0.0.1:9/none"
    async with Service(tmp_path, DATABASE_URL=url).start("api") as service:
        await log_in(service.client)
        answer = await service.client.get("/ops/jobs")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "<h1>The database is away</h1>" in answer.text and "nobody" not in answer.text


async def test_a_rate_for_all_requests_counts_the_page_too(tmp_path: Path) -> None:
    async with Service.alone(tmp_path, REQUEST_RATE="2/day").start("api") as service:
        client = {"X-Forwarded-For": f"2001:{uuid4().hex[:4]}:{uuid4().hex[:4]}:1::1"}
        answers = [await service.client.get("/ops/login", headers=client) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "Too often" in answers[2].text


def test_a_length_of_time_is_shown_in_its_largest_unit() -> None:
    from app.ops.text import lasts

    lengths: list[float | timedelta] = [0.4, 59, 60, timedelta(days=2)]
    assert [lasts(length) for length in lengths] == ["400 ms", "59 s", "1 min", "2 d"]
