"""Who can log in to `/ops`, for how long, and which changes other sites can't make."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from itertools import product
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from pydantic import SecretStr

from app.config import get_settings
from app.main import create_app
from app.ops import session as sessions
from app.ops.page import PageRoute
from tests.engine import probes
from tests.engine.api.ops import browser, log_in, send, text_of, token_of
from tests.engine.api.routes import all_in
from tests.engine.jobs.rows import row_of, submit

COOKIE = sessions.SESSION
VALUES = {"job_id": "00000000-0000-0000-0000-000000000000", "action": "pause"}


@pytest.fixture
async def stranger() -> AsyncIterator[httpx.AsyncClient]:
    async with browser() as client:
        yield client


@pytest.fixture
async def operator(stranger: httpx.AsyncClient) -> httpx.AsyncClient:
    assert (await log_in(stranger)).status_code == 303
    return stranger


def routes(method: str) -> list[str]:
    """The paths of the page except the login's, with values for their parameters."""
    found = [each for each in all_in(create_app().routes) if isinstance(each, PageRoute)]
    paths = [
        each.path for each in found if method in (each.methods or ()) and each.path != "/ops/login"
    ]
    return [re.sub(r"\{(\w+)\}", lambda name: VALUES[name[1]], path) for path in paths]


async def test_without_a_key_there_is_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers are the same as those of a path that doesn't exist."""
    monkeypatch.setattr(get_settings(), "api_key", None)
    transport = httpx.ASGITransport(create_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for method, path in product(("GET", "POST"), ("", "/login", "/jobs", "/static/ops.css")):
            seen, never = [await client.request(method, f"{p}{path}") for p in ("/ops", "/none")]
            assert (seen.status_code, seen.content) == (404, never.content), (method, path)
            del seen.headers["X-Request-ID"], never.headers["X-Request-ID"]
            assert seen.headers == never.headers


async def test_it_is_not_in_openapi(stranger: httpx.AsyncClient) -> None:
    assert "/ops" not in (await stranger.get("/openapi.json")).text


async def test_a_stranger_sees_the_login_alone(stranger: httpx.AsyncClient) -> None:
    assert len(routes("GET")) > 5
    for path in routes("GET"):
        answer = await stranger.get(path, params={"status": "dead"})
        assert answer.status_code == 303, path
        to = urlsplit(answer.headers["Location"])
        assert (to.path, parse_qs(to.query)) == ("/ops/login", {"to": [f"{path}?status=dead"]})


async def test_a_login_leads_to_what_was_asked_for(stranger: httpx.AsyncClient) -> None:
    answer = await log_in(stranger, to="/ops/jobs?status=dead")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/ops/jobs?status=dead")
    await text_of(stranger, "/ops/jobs", status="dead")


async def test_a_login_is_asked_for_from_a_long_address_too(stranger: httpx.AsyncClient) -> None:
    """Then it leads to the first page."""
    answer = await stranger.get("/ops/jobs", params={"error": "ж" * 400})
    login = answer.headers["Location"]
    assert (answer.status_code, parse_qs(urlsplit(login).query)) == (303, {"to": ["/ops"]})
    assert 'type="password"' in await text_of(stranger, login)


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/opsx", "/ops\n", "x"])
async def test_a_login_leads_nowhere_else(stranger: httpx.AsyncClient, to: str) -> None:
    assert (await log_in(stranger, to=to)).status_code == 422
    assert (await stranger.get("/ops/login", params={"to": to})).status_code == 422


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_cookie_is_for_this_page_alone(scheme: str) -> None:
    async with browser(scheme) as client:
        header = (await log_in(client)).headers["Set-Cookie"]
    flags = {flag.strip().lower() for flag in header.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/ops", f"max-age={8 * 3600}"} <= flags
    assert ("secure" in flags) is (scheme == "https")
    assert os.environ["API_KEY"] not in header


@pytest.mark.parametrize("key", ["wrong", " ", "ключ", "a" * 5000])
async def test_a_wrong_key_lets_nobody_in(stranger: httpx.AsyncClient, key: str) -> None:
    answer = await log_in(stranger, key)
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (401, False)
    assert "not the operators" in answer.text


async def test_tries_to_log_in_have_a_rate(stranger: httpx.AsyncClient) -> None:
    """Then the right key is refused as well, or guessing could go on."""
    for _ in range(10):
        assert (await log_in(stranger, "wrong")).status_code == 401
    refused = await log_in(stranger)
    assert (refused.status_code, "Set-Cookie" in refused.headers) == (429, False)
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    async with browser() as another:
        assert (await log_in(another)).status_code == 303


async def log_in_at(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """By a replica whose clock is ahead by so much, or so long ago if the number is negative."""
    at = TimestampSigner("").get_timestamp() + int(seconds)
    with monkeypatch.context() as patch:
        patch.setattr(TimestampSigner, "get_timestamp", lambda _: at)
        assert (await log_in(client)).status_code == 303


@pytest.mark.parametrize(("hours", "code"), [(7.9, 200), (8.1, 303)])
async def test_a_session_ends(
    stranger: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, hours: float, code: int
) -> None:
    await log_in_at(stranger, monkeypatch, -hours * 3600)
    assert (await stranger.get("/ops/jobs")).status_code == code


@pytest.mark.parametrize(("minutes", "code"), [(0.1, 200), (4, 200), (6, 303)])
async def test_another_replicas_clock_may_be_ahead(
    stranger: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, minutes: float, code: int
) -> None:
    await log_in_at(stranger, monkeypatch, minutes * 60)
    assert (await stranger.get("/ops/jobs")).status_code == code


async def test_another_key_ends_all_sessions(
    operator: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await token_of(operator)
    monkeypatch.setattr(get_settings(), "api_key", SecretStr("the operators' next key"))
    assert (await operator.get("/ops/jobs")).status_code == 303
    answer = await operator.post("/ops/queues/pause?queue=default", data={"token": token})
    assert answer.status_code == 401


@pytest.mark.parametrize("key", ["", "a key that somebody guessed"])
@pytest.mark.parametrize("purpose", [COOKIE, sessions.NOTICE])
async def test_a_forged_cookie_is_none(stranger: httpx.AsyncClient, key: str, purpose: str) -> None:
    """A cookie that this service has signed for another purpose is none, either."""
    key = key or (os.environ["API_KEY"] if purpose != COOKIE else "another")
    signer = URLSafeTimedSerializer(key, purpose, signer_kwargs=sessions.SIGNING)
    for value in (signer.dumps("session"), "session", ".", "a.b.c", "é"):
        cookie = {b"Cookie": f"{COOKIE}={value}".encode()}
        assert (await stranger.get("/ops/jobs", headers=cookie)).status_code == 303


async def test_what_is_signed_as_a_notice_is_no_session(operator: httpx.AsyncClient) -> None:
    job_id = await submit(probes.echo, "hello")
    await send(operator, f"/ops/jobs/{job_id}/cancel")
    notice = operator.cookies[sessions.NOTICE]
    operator.cookies.clear()
    cookie = {"Cookie": f"{COOKIE}={notice}"}
    assert (await operator.get("/ops/jobs", headers=cookie)).status_code == 303


async def test_one_can_log_out(operator: httpx.AsyncClient) -> None:
    assert (await send(operator, "/ops/logout")).status_code == 303
    assert COOKIE not in operator.cookies
    assert (await operator.get("/ops/jobs")).status_code == 303


@pytest.mark.parametrize("token", [None, "", "wrong", "é", "of another session"])
async def test_a_change_needs_the_token_of_its_session(
    operator: httpx.AsyncClient, token: str | None
) -> None:
    if token == "of another session":
        async with browser() as other:
            await log_in(other)
            token = await token_of(other)
    assert len(routes("POST")) > 5
    for path in routes("POST"):
        answer = await operator.post(path, data={} if token is None else {"token": token})
        assert answer.status_code == 403, path
        assert "not made for your session" in answer.text


async def test_nothing_changes_without_the_token(operator: httpx.AsyncClient) -> None:
    job_id = await submit(probes.echo, "hello")
    path = f"/ops/jobs/{job_id}/cancel"
    for token, status in (("wrong", "pending"), (await token_of(operator), "cancelled")):
        await operator.post(path, data={"token": token})
        assert (await row_of(job_id)).status == status
    assert (await operator.get(path)).status_code == 405


async def test_every_answer_is_under_the_policy(operator: httpx.AsyncClient) -> None:
    for path in ["/ops/login", "/ops/static/ops.css", "/ops/jobs?status=x", *routes("GET")]:
        headers = (await operator.get(path)).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        if "static" not in path:
            assert headers["Cache-Control"] == "no-store", path


async def test_a_link_from_another_site_finds_the_session(operator: httpx.AsyncClient) -> None:
    """The browser sends no strict cookie with the link, but when the page loads itself again."""
    cookie = operator.cookies.get(COOKIE, path="/ops")
    operator.cookies.clear()
    answer = await operator.get("/ops/jobs", headers={"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, 'http-equiv="refresh" content="0"' in answer.text) == (200, True)
    operator.cookies.set(COOKIE, cookie or "", path="/ops")
    await text_of(operator, "/ops/jobs")
