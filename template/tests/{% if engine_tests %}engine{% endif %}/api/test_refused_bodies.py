"""On each database the API refuses alike what can't be stored, or couldn't be shown again."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import httpx
import psutil
import pytest
from fastapi import FastAPI, Query

from app.api import errors
from app.api.errors import MAX_ERRORS, MAX_NAME
from app.api.routing import MAX_DEPTH, MAX_VALUES, Router
from app.config import get_settings
from tests.engine.api.schedule_calls import ECHO, create, get
from tests.service import Service

JSON = {"Content-Type": "application/json"}
UNKEPT = [r'"a\ud800b"', r'"a\u0000b"', "NaN", "-Infinity", "1e999", str(10**30), "9" * 5000]
LIMIT = get_settings().max_body_bytes
LONGEST = {
    "list": "[" + "1," * (LIMIT // 2 - 2) + "1]",
    "object": "{" + ",".join(f'"{number:05x}":1' for number in range(LIMIT // 10 - 1)) + "}",
}


async def post(service: Service, path: str, body: str | bytes) -> httpx.Response:
    return await service.client.post(path, content=body, headers=JSON)


@pytest.mark.parametrize("value", UNKEPT[:-1])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"item": VALUE, "quantity": 1}', ["item"]),
        ('{"item": "a", "quantity": VALUE}', ["quantity"]),
        ('{"item": "a", "quantity": 1, "more": [0, {"deep": VALUE}]}', ["more", 1, "deep"]),
    ],
)
async def test_what_cannot_be_kept_names_its_field(
    service: Service, value: str, body: str, field: list[str]
) -> None:
    answer = await post(service, "/orders", body.replace("VALUE", value))
    [error] = answer.json()["detail"]
    assert (answer.status_code, error["loc"]) == (422, ["body", *field])
    assert set(error) == {"loc", "msg", "type"}


@pytest.mark.parametrize("value", UNKEPT)
async def test_a_schedule_keeps_none_of_it(service: Service, value: str) -> None:
    """This holds for arguments, too, though only the task knows their types."""
    made = await create(service)
    wrong = json.dumps(ECHO).replace('"tick"', value)
    change = json.dumps({"revision": 1, "args": {"text": "tick"}}).replace('"tick"', value)
    for method, path, body in [("POST", "", wrong), ("PATCH", f"/{made['id']}", change)]:
        url, headers = f"/schedules{path}", JSON | service.operator
        answer = await service.client.request(method, url, content=body, headers=headers)
        assert answer.status_code == 422, answer.text
    assert await get(service, made["id"]) == made


@pytest.mark.parametrize("revision", ["0", "2147483648", "99999999999999999999", "NaN", "1.0"])
async def test_a_revision_fits_its_column(service: Service, revision: str) -> None:
    headers = JSON | service.operator
    body = '{"revision": NUMBER, "paused": true}'.replace("NUMBER", revision)
    answer = await service.client.patch("/schedules/daily_report", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "revision"]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        b"\xff\xfe\xff",
        "[" * 100_000,
        '{"item": ' + "[" * 200 + "]" * 200 + ', "quantity": 1}',
        "null",
        "[1, 2]",
        r'{"\ud800": 1}',
        r'{"item": "a", "quantity": 1, "\u0000": {}}',
    ],
    ids=lambda body: repr(body[:12]),
)
async def test_what_is_no_order_at_all(service: Service, body: str | bytes) -> None:
    answer = await post(service, "/orders", body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "body"


async def test_arguments_nest_as_deep_as_they_can_be_shown(service: Service) -> None:
    deepest = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    for value, loc in [(deepest, 2), (f"[{deepest}]", MAX_DEPTH + 1)]:
        body = '{"item": VALUE, "quantity": 1}'.replace("VALUE", value)
        answer = await post(service, "/orders", body)
        assert len(answer.json()["detail"][0]["loc"]) == loc


@pytest.mark.parametrize("quantity", ["true", '"7"', "1.0", "null", "[]"])
async def test_types_are_strict(service: Service, quantity: str) -> None:
    body = '{"item": "a", "quantity": NUMBER}'.replace("NUMBER", quantity)
    answer = await post(service, "/orders", body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "quantity"]


async def test_a_refusal_is_short_and_echoes_nothing(service: Service) -> None:
    many = {f"field {number}": "secret" for number in range(MAX_VALUES)}
    few = dict(list(many.items())[:1000])
    for body in (many, few, {"x" * 100_000: "secret"}, ["secret"] * MAX_VALUES):
        answer = await post(service, "/orders", json.dumps(body))
        assert answer.status_code == 422
        assert len(answer.json()["detail"]) <= MAX_ERRORS
        assert len(answer.content) < 10_000
        assert "secret" not in answer.text


@pytest.mark.parametrize("odd", ["\x1b[31m", "\x9b", "\x7f", "\u202e", "\n", "\U000e0001"])
async def test_a_name_is_printable_and_short(service: Service, odd: str) -> None:
    answer = await post(service, "/orders", json.dumps({odd * 1000: 1, "item": "a", "quantity": 1}))
    [error] = answer.json()["detail"]
    assert answer.status_code == 422
    assert error["loc"][1] == (ascii(odd)[1:-1] * 1000)[:MAX_NAME]


@pytest.mark.parametrize("shape", LONGEST)
async def test_live_answers_while_long_bodies_come_in(service: Service, shape: str) -> None:
    """The limit is on the API's own work, however much else the machine does.

    An answer may have to wait for all eight bodies. Each takes some hundredths of a second.
    """
    api = psutil.Process(service.processes["api"].pid)
    async with asyncio.TaskGroup() as group:
        refused = [group.create_task(post(service, "/orders", LONGEST[shape])) for _ in range(8)]
        while not all(each.done() for each in refused):
            before = sum(api.cpu_times()[:2])
            assert (await service.client.get("/health/live")).status_code == 200
            assert sum(api.cpu_times()[:2]) - before < 1
    assert {each.result().status_code for each in refused} == {422}


async def test_a_body_has_so_many_values(service: Service) -> None:
    for count, loc in [(MAX_VALUES - 5, ["body", "item"]), (MAX_VALUES, ["body"])]:
        answer = await post(service, "/orders", json.dumps({"item": [1] * count, "quantity": 1}))
        assert answer.json()["detail"][0]["loc"] == loc


@pytest.mark.parametrize(
    "url", ["/a%00b", "/a?more=%00", "/a?more=%00&more=b", "/a?more=b&more=%00"]
)
async def test_a_path_and_a_query_have_no_nul_either(url: str) -> None:
    """It is refused even if the route sets no limits for its parameters."""
    router, api = Router(), FastAPI()

    @router.get("/{name}")
    async def show(name: str, more: Annotated[list[str], Query()]) -> str:
        return name + "".join(more)

    api.include_router(router)
    errors.install(api)
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/a", params={"more": ["b", "c"]})).json() == "abc"
        answer = await client.get(url)
    [error] = answer.json()["detail"]
    assert (answer.status_code, error["type"]) == (422, "text")
    assert error["loc"] in (["path", "name"], ["query", "more"])


async def test_a_body_has_a_limit(service: Service) -> None:
    fits = json.dumps({"item": "a", "quantity": 1}).ljust(LIMIT)
    assert (await post(service, "/orders", fits)).status_code == 201
    answer = await post(service, "/orders", f"{fits} ")
    assert (answer.status_code, answer.json()) == (
        413,
        {"detail": f"the body is over {LIMIT} bytes"},
    )


@pytest.mark.parametrize("path", ["/orders", "/ops/login"])
async def test_a_body_that_says_it_is_long_is_not_waited_for(service: Service, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LIMIT + 1}\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(20):
        assert b" 413 " in await reader.readline()
    writer.close()


@pytest.mark.parametrize("path", ["/orders", "/ops/login"])
async def test_a_chunked_body_is_refused_while_it_is_read(service: Service, path: str) -> None:
    """Its length isn't announced, and its end hasn't been sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode())
    writer.write(chunk * (LIMIT // 0x10000 + 1))
    async with asyncio.timeout(20):
        assert b" 413 " in await reader.readline()
    writer.close()


@pytest.mark.parametrize("path", ["/orders", "/ops/login"])
async def test_a_client_that_hangs_up_during_its_body_is_no_error(
    service: Service, path: str
) -> None:
    before = len(service.log("api"))
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    writer.write(head.encode() + b"only this")
    writer.write_eof()
    async with asyncio.timeout(20):
        assert await reader.read() == b""
    writer.close()
    assert (await service.client.get("/health/live")).status_code == 200
    logged = service.log("api")[before:].splitlines()
    assert [line for line in logged if "[error" in line and "uvicorn" in line] == []


@pytest.mark.parametrize("body", ["{", "[1]", "x" * (LIMIT + 1)], ids=["broken", "list", "long"])
async def test_the_key_is_checked_before_the_body_is_read(service: Service, body: str) -> None:
    for method, path in [("POST", "/schedules"), ("PATCH", "/schedules/daily_report")]:
        answer = await service.client.request(method, path, content=body, headers=JSON)
        assert (answer.status_code, answer.json()) == (
            401,
            {"detail": "X-API-Key is missing or wrong"},
        )
