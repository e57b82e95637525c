"""An operator's browser, reduced to HTTP: it keeps cookies, and sends a form's token."""

from __future__ import annotations

import html
import os
import re
import secrets
from typing import Any

import httpx

TOKEN = re.compile(r'name="token" value="([^"]+)"')


def browser(scheme: str = "http") -> httpx.AsyncClient:
    """A browser with a new address, so that no other test's tries to log in count for it."""
    from app.main import app

    address = f"2001:{secrets.token_hex(2)}:{secrets.token_hex(2)}:1::1"
    transport = httpx.ASGITransport(app, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url=f"{scheme}://localhost")


async def log_in(client: httpx.AsyncClient, key: str = "", **query: str) -> httpx.Response:
    form = {"key": key or os.environ["API_KEY"]}
    return await client.post("/ops/login", params=query, data=form)


async def text_of(client: httpx.AsyncClient, path: str, code: int = 200, **query: Any) -> str:
    """The HTML of a page."""
    answer = await client.get(path, params=query or None)
    assert answer.status_code == code, answer.text
    return answer.text


async def token_of(client: httpx.AsyncClient) -> str:
    found = TOKEN.search(await text_of(client, "/ops/processes"))
    assert found
    return found[1]


async def send(client: httpx.AsyncClient, path: str, **query: Any) -> httpx.Response:
    """Send a form to this path, with a valid token."""
    token = await token_of(client)
    return await client.post(path, params=query, data={"token": token})


async def press(client: httpx.AsyncClient, text: str, button: str) -> str:
    """Press a button of this page; returns the page that it leads to."""
    forms = re.findall(r"<form method=\"post\".+?</form>", text, re.DOTALL)
    (form,) = [form for form in forms if f'id="{button}"' in form]
    found, token = re.search(r'action="([^"]+)"', form), TOKEN.search(form)
    assert found and token
    answer = await client.post(html.unescape(found[1]), data={"token": token[1]})
    assert answer.status_code == 303, answer.text
    return await text_of(client, answer.headers["Location"])
