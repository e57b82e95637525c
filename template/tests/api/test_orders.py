from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from tests.service import Service

ORDER = {"item": "book", "quantity": 2}


async def test_an_order_is_accepted_and_processed_by_its_job(service: Service) -> None:
    answer = await service.client.post("/orders", json=ORDER)
    assert answer.status_code == 201
    order, job_id = answer.json()["data"]["order"], answer.json()["data"]["job_id"]
    assert order | ORDER == order
    job = await service.job_is(job_id, "succeeded")
    assert (job["task"], job["attempts"], job["error"]) == ("orders.process_order", 1, None)
    assert job["result"] == {"order_id": order["id"], "status": "processed"}
    processed = await service.client.get(f"/orders/{order['id']}")
    assert processed.json()["data"]["status"] == "processed"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"item": "", "quantity": 1}, "item"),
        ({"item": "book", "quantity": 0}, "quantity"),
        ({"item": "book"}, "quantity"),
        ({**ORDER, "price": 1}, "price"),
    ],
)
async def test_bad_input_names_the_field(
    service: Service, body: dict[str, object], field: str
) -> None:
    answer = await service.client.post("/orders", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", field]


async def test_an_unknown_order_is_404(service: Service) -> None:
    assert (await service.client.get(f"/orders/{uuid4()}")).status_code == 404


async def test_one_idempotency_key_is_one_order(service: Service) -> None:
    headers = {"Idempotency-Key": f"key {uuid4()}"}

    async def post() -> tuple[int, str, str]:
        answer = await service.client.post("/orders", json=ORDER, headers=headers)
        data = answer.json()["data"]
        return answer.status_code, data["order"]["id"], data["job_id"]

    answers = {*await asyncio.gather(*(post() for _ in range(4))), await post()}
    assert len(answers) == 1
    assert answers.pop()[0] == 201
    other = await service.client.post("/orders", json={**ORDER, "quantity": 3}, headers=headers)
    assert other.status_code == 422
    [error] = other.json()["detail"]
    assert error["loc"] == ["header", "idempotency-key"]
    assert "another body" in error["msg"]
