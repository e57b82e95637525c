"""The rates of requests for one client, whatever address the client claims to have."""

from __future__ import annotations

import secrets

from tests.engine.api.rates import RATES, anybody, notify
from tests.service import Service


async def test_mail_has_a_rate(limited: Service) -> None:
    """A refusal has the form of each error, and says when to ask again. Others aren't refused."""
    client = anybody()
    assert [(await notify(limited, client)).status_code for _ in range(3)] == [202] * 3
    refused = await notify(limited, client)
    assert refused.status_code == 429
    assert refused.json() == {"detail": "too many requests: try again later"}
    assert 1 <= int(refused.headers["Retry-After"]) <= 86_400
    assert (await notify(limited, anybody())).status_code == 202


async def test_requests_have_a_rate_and_probes_have_none(limited: Service) -> None:
    """Requests without the key count, too, and each counts before its body is read."""
    client = {"X-Forwarded-For": anybody()}
    for status in [401] * 5 + [429]:
        answer = await limited.client.post("/schedules", content="{", headers=client)
        assert answer.status_code == status
    assert (await limited.client.get("/health/live", headers=client)).status_code == 200


async def test_what_a_client_says_before_the_proxy_does_not_count(limited: Service) -> None:
    client = anybody()
    answers = [await notify(limited, f"{anybody()}, {client}") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [202] * 3 + [429]


async def test_a_proxy_that_is_not_trusted_is_the_client(limited: Service) -> None:
    folder = limited.folder / "open"
    rate = f"3/{60 + secrets.randbelow(10_000)}minute"  # other runs have the same client
    env = RATES | {"FORWARDED_ALLOW_IPS": "192.0.2.1", "MAIL_RATE": rate}
    async with Service.alone(folder, **env).start("api") as service:
        answers = [await notify(service, anybody()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [202] * 3 + [429]


async def test_an_ipv6_client_is_its_network(limited: Service) -> None:
    network = anybody().removesuffix(":1::1")
    answers = [await notify(limited, f"{network}::{number}") for number in range(4)]
    assert [answer.status_code for answer in answers] == [202] * 3 + [429]
    assert (await notify(limited, f"{network}:2::1")).status_code == 202


async def test_an_ipv4_client_is_its_address(limited: Service) -> None:
    """The same address written as IPv6 is the same client."""
    client = f"198.51.{secrets.randbelow(256)}.{secrets.randbelow(255)}"
    answers = [await notify(limited, f"{form}{client}") for form in ("", "::ffff:", "", "")]
    assert [answer.status_code for answer in answers] == [202] * 3 + [429]


async def test_openapi_names_the_refusal(limited: Service) -> None:
    paths = (await limited.client.get("/openapi.json")).json()["paths"]
    assert "429" in paths["/notify"]["post"]["responses"]
    assert "429" not in paths["/health/live"]["get"]["responses"]
