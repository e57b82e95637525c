"""A wrong value gets 422 with its field, in FastAPI's own form, and isn't stored."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.engine.api.schedule_calls import ECHO, HOURLY, call, create, get
from tests.service import Service

CRON, DATE = ["trigger", "cron"], ["trigger", "date"]

WRONG: list[tuple[dict[str, Any], list[str], str]] = [
    ({"trigger": {"kind": "cron", "expression": "0 6 * *"}}, CRON, "five fields, not 4"),
    (
        {"trigger": {"kind": "cron", "expression": "61 * * * *"}},
        CRON,
        "not within 0-59",
    ),
    ({"trigger": {"kind": "cron", "expression": "0 0 30 2 *"}}, CRON, "never fires"),
    ({"trigger": {"kind": "date", "at": "2020-01-01T00:00:00Z"}}, ["trigger"], "never fires"),
    (
        {"trigger": {"kind": "date", "at": "2999-01-01T00:00:00"}},
        ["trigger", "date"],
        "no time zone",
    ),
    ({"trigger": {"kind": "lunar"}}, ["trigger"], "expected tags: 'interval', 'cron'"),
    (
        {"trigger": {"kind": "interval", "seconds": 0}},
        ["trigger", "interval"],
        "whole number of seconds",
    ),
    (
        {"trigger": {"kind": "cron", "expression": "0 6 * * *", "timezone": "Mars/Base"}},
        CRON,
        "unknown time zone 'Mars/Base'",
    ),
    ({"trigger": "hourly"}, ["trigger"], "an object"),
    ({"trigger": {"kind": "cron"}}, ["trigger", "cron", "expression"], "required"),
    ({"trigger": {"kind": "date", "at": 7}}, ["trigger", "date", "at"], "datetime"),
    ({"trigger": HOURLY | {"on": 1}}, ["trigger", "interval", "on"], "Unexpected"),
    ({"args": {}}, ["args", "text"], "required"),
    ({"args": {"text": 5}}, ["args", "text"], "valid string"),
    ({"args": {"text": "a", "times": 2}}, ["args", "times"], "not permitted"),
    ({"args": {"text": "a" * 65_536}}, ["args"], "64 KiB"),
    ({"misfire_grace": -1}, ["misfire_grace"], "greater than or equal to 0"),
    ({"misfire_grace": 1e9}, ["misfire_grace"], "less than or equal to"),
    (
        {"trigger": HOURLY, "misfire_grace": 3_600_000, "catch_up": "each"},
        ["misfire_grace"],
        "more than 1000 ticks",
    ),
    ({"misfire_grace": True}, ["misfire_grace"], "valid number"),
    ({"paused": 0}, ["paused"], "valid boolean"),
    ({"catch_up": "some"}, ["catch_up"], "'latest' or 'each'"),
    ({"overlap": "maybe"}, ["overlap"], "'queue' or 'skip'"),
    ({"surprise": 1}, ["surprise"], "not permitted"),
]
WRONG_AT_FIRST: list[tuple[dict[str, Any], list[str], str]] = [
    ({"task": "os.system"}, ["task"], "unknown task"),
    ({"id": "a/b"}, ["id"], "match pattern"),
    ({"id": "x" * 201}, ["id"], "at most 200 characters"),
]


def said(answer: httpx.Response) -> tuple[int, list[str], str]:
    [error] = answer.json()["detail"]
    assert set(error) >= {"loc", "msg", "type"}
    return answer.status_code, error["loc"], error["msg"]


@pytest.mark.parametrize(("wrong", "loc", "reason"), WRONG + WRONG_AT_FIRST)
async def test_a_wrong_one_is_refused_and_not_stored(
    service: Service, wrong: dict[str, Any], loc: list[str], reason: str
) -> None:
    before = await ids(service)
    status, where, message = said(await call(service, "POST", "", **ECHO | wrong))
    assert (status, where) == (422, ["body", *loc])
    assert reason in message
    assert await ids(service) == before


@pytest.mark.parametrize(("wrong", "loc", "reason"), WRONG)
async def test_a_wrong_change_is_refused_and_not_stored(
    service: Service, wrong: dict[str, Any], loc: list[str], reason: str
) -> None:
    made = await create(service)
    change = {"revision": made["revision"], **wrong}
    status, where, message = said(await call(service, "PATCH", f"/{made['id']}", **change))
    assert (status, where) == (422, ["body", *loc])
    assert reason in message
    assert await get(service, made["id"]) == made


@pytest.mark.parametrize("kind", ["lunar" * 1000, "lu\x9bnar", "' found using lunar"])
async def test_a_kind_is_not_repeated(service: Service, kind: str) -> None:
    """A long one would hide which kinds there are."""
    answer = await call(service, "POST", "", **ECHO | {"trigger": {"kind": kind}})
    _, _, message = said(answer)
    assert "lu" not in message
    assert message.endswith("expected tags: 'interval', 'cron', 'calendar', 'date'")


async def ids(service: Service) -> list[str]:
    answer = await call(service, "GET", "")
    return [schedule["id"] for schedule in answer.json()["data"]]
