from __future__ import annotations

from tests.service import START_LIMIT, Service, eventually


async def test_live_and_ready(service: Service) -> None:
    assert (await service.client.get("/health/live")).status_code == 200

    async def ready() -> dict[str, str] | None:
        answer = await service.client.get("/health/ready")
        return answer.json()["data"] if answer.status_code == 200 else None

    assert set((await eventually(ready, START_LIMIT)).values()) == {"ok"}
