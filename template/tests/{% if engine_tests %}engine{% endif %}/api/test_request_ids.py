"""A request's id is in its answer, even in an error, and in each line of the log about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.engine.api.routes import with_a_broken_route
from tests.service import Service, eventually

HEADER = "X-Request-ID"
ORDER = {"item": "tea", "quantity": 1}
LONG = b"a" * 2_000_000

Ask = Callable[[Service, dict[str, str]], Any]

ANSWERS: dict[int, Ask] = {
    200: lambda service, headers: service.client.get("/health/live", headers=headers),
    201: lambda service, headers: service.client.post("/orders", json=ORDER, headers=headers),
    400: lambda service, headers: service.client.get("/", headers=headers | {"Host": "evil.test"}),
    401: lambda service, headers: service.client.get("/jobs", headers=headers),
    404: lambda service, headers: service.client.get("/nothing", headers=headers),
    405: lambda service, headers: service.client.put("/orders", headers=headers),
    413: lambda service, headers: service.client.post("/orders", content=LONG, headers=headers),
    422: lambda service, headers: service.client.post("/orders", json={}, headers=headers),
}


@pytest.fixture(scope="module")
async def limited(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service with one allowed host, which logs JSON."""
    settings = {"ALLOWED_HOSTS": '["127.0.0.1"]', "LOG_JSON": "true"}
    async with Service.alone(tmp_path_factory.mktemp("ids"), **settings) as service:
        yield service.start_all()


def lines(service: Service, request_id: str) -> Iterator[dict[str, Any]]:
    for name in service.processes:
        for line in service.log(name).splitlines():
            if line.startswith("{") and request_id in line:
                yield json.loads(line)


@pytest.mark.parametrize("status", ANSWERS)
async def test_the_id_is_in_each_answer(limited: Service, status: int) -> None:
    given = str(uuid4())
    answer = await ANSWERS[status](limited, {HEADER: given})
    assert (answer.status_code, answer.headers.get_list(HEADER)) == (status, [given])


async def test_an_id_is_made_if_the_given_one_cannot_be_used(limited: Service) -> None:
    insane = ["", "a" * 101, "a b", "a\tb", "é", "a;rm", "-a", '{"a": 1}', "a%0ab"]
    made = set()
    for given in insane:
        sent: list[tuple[bytes, bytes]] = [(HEADER.encode(), given.encode())]
        answer = await limited.client.get("/health/live", headers=httpx.Headers(sent))
        made.add(UUID(answer.headers[HEADER]))
    assert len(made) == len(insane)


@pytest.mark.parametrize("given", ["a", "Root=1-67891233-abcdef012345678912345678", "01J/x:y+z=="])
async def test_an_id_of_a_proxy_is_kept(limited: Service, given: str) -> None:
    answer = await limited.client.get("/health/live", headers={HEADER: given})
    assert answer.headers[HEADER] == given


async def test_an_error_of_the_service_has_the_id_too() -> None:
    async with with_a_broken_route() as client:
        answer = await client.get("/broken", headers={HEADER: "mine"})
    assert (answer.status_code, answer.headers.get_list(HEADER)) == (500, ["mine"])


async def test_the_id_is_in_the_lines_of_the_request(limited: Service) -> None:
    given = str(uuid4())
    await limited.client.get("/nothing", headers={HEADER: given})

    async def logged() -> list[dict[str, Any]]:
        return list(lines(limited, given))

    (line,) = await eventually(logged)
    assert (line["request_id"], line["logger"]) == (given, "uvicorn.access")
