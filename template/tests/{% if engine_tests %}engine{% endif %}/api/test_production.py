"""In production the API hides its docs, and answers only its own hosts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.engine.booting import STRONG, URLS
from tests.service import START_LIMIT, Service, eventually

SETTINGS = {name: value for name, value in STRONG.items() if name not in URLS}
SETTINGS["TRUSTED_URLS"] = json.dumps([*URLS])
OURS = {"Host": "api.example.com"}


@pytest.fixture
async def production(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    more: dict[str, str] = getattr(request, "param", {})
    service = Service.alone(tmp_path, ENVIRONMENT="production", **SETTINGS | more)
    async with service.start("api"):
        yield service


async def test_only_its_own_hosts_are_answered(production: Service) -> None:
    client = production.client
    for host, status in [("api.example.com", 404), ("evil.example", 400), ("localhost:8000", 404)]:
        answer = await client.get(f"/orders/{uuid4()}", headers={"Host": host})
        assert answer.status_code == status, host
        assert (answer.json() == {"detail": "Host is none of ALLOWED_HOSTS"}) == (status == 400)


async def test_a_probe_may_name_the_address_that_it_asks(production: Service) -> None:
    """A kubelet and most load balancers do."""
    address = {"Host": "10.0.0.7:8000"}

    async def is_ready() -> bool:
        return (await production.client.get("/health/ready", headers=address)).is_success

    await eventually(is_ready, START_LIMIT)
    for path, status in [("/health/live", 200), ("/queues", 400)]:
        answer = await production.client.get(path, headers=address)
        assert answer.status_code == status, path


async def test_the_host_gets_into_no_redirect(production: Service) -> None:
    answer = await production.client.post("/orders/", headers=OURS)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize(
    ("production", "status"), [({}, 404), ({"API_DOCS": "true"}, 200)], indirect=["production"]
)
async def test_the_docs_are_off_unless_a_setting_turns_them_on(
    production: Service, status: int
) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert (await production.client.get(path, headers=OURS)).status_code == status
