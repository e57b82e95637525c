"""Requests of many clients, and rates that are low enough for a test."""

from __future__ import annotations

import secrets

import httpx

from tests.service import Service

MAIL = {"email": "a@example.com", "message": "hello"}
RATES = {"MAIL_RATE": "3/day", "REQUEST_RATE": "5/day"}  # no window ends during the tests


def anybody() -> str:
    """The address of a client that no other test uses."""
    return f"2001:{secrets.token_hex(2)}:{secrets.token_hex(2)}:1::1"


async def notify(service: Service, forwarded: str) -> httpx.Response:
    return await service.client.post("/notify", json=MAIL, headers={"X-Forwarded-For": forwarded})
