"""Calls of the operator routes for schedules."""

from __future__ import annotations

from typing import Any

import httpx

from tests.service import Service

HOURLY = {"kind": "interval", "seconds": 3600}
# No tick comes while a test compares what it has read, not even at a full hour.
WEEKLY = {"kind": "interval", "seconds": 604_800}
ECHO = {"task": "probes.echo", "trigger": WEEKLY, "args": {"text": "tick"}}


async def call(service: Service, method: str, path: str, **body: Any) -> httpx.Response:
    url = f"/schedules{path}"
    content = body or None
    return await service.client.request(method, url, json=content, headers=service.operator)


async def create(service: Service, **fields: Any) -> dict[str, Any]:
    answer = await call(service, "POST", "", **ECHO | fields)
    assert answer.status_code == 201, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


async def get(service: Service, schedule_id: str) -> dict[str, Any]:
    answer = await call(service, "GET", f"/{schedule_id}")
    assert answer.status_code == 200
    data: dict[str, Any] = answer.json()["data"]
    return data
