from __future__ import annotations

from tests.service import Service


async def test_live_and_ready(service: Service) -> None:
    assert (await service.client.get("/health/live")).status_code == 200
    ready = await service.client.get("/health/ready")
    assert ready.status_code == 200
    assert set(ready.json()["data"].values()) == {"ok"}
