"""Sessions of operators: a signed cookie that expires, and a token that each form sends.

API_KEY signs both, so that a new key ends all sessions.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request, Response
from itsdangerous import BadSignature, Signer, URLSafeTimedSerializer

from app.config import get_settings

SESSION, NOTICE = "ops_session", "ops_notice"  # cookies
AGES = {SESSION: 8 * 3600, NOTICE: 60}  # seconds after which each expires
AHEAD = timedelta(minutes=5)  # by which another replica's clock may be ahead
SIGNING: dict[str, Any] = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
FOREIGN = "This form was not made for your session. Go back, reload the page and try again."


class NoSessionError(Exception):
    """Nobody has logged in, or the session has ended."""


class ForeignFormError(Exception):
    """The form doesn't have the session's token. The text is for operators."""


def keep(request: Request, response: Response, cookie: str, value: str) -> None:
    response.set_cookie(
        cookie,
        _signer(cookie).dumps(value),
        max_age=AGES[cookie],
        path="/ops",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def kept(request: Request, cookie: str) -> str | None:
    """The cookie's value. None if it has expired, or another key has signed it."""
    value: str
    try:
        value, signed_at = _signer(cookie).loads(
            request.cookies.get(cookie, ""), return_timestamp=True
        )
    except BadSignature:
        return None
    age = datetime.now(UTC) - signed_at
    return value if -AHEAD <= age <= timedelta(seconds=AGES[cookie]) else None


def drop(response: Response, cookie: str) -> None:
    response.delete_cookie(cookie, path="/ops")


def begin(request: Request, response: Response) -> None:
    keep(request, response, SESSION, secrets.token_urlsafe(16))


async def admit(request: Request) -> None:
    """Raises NoSessionError or ForeignFormError."""
    session = kept(request, SESSION)
    if session is None:
        raise NoSessionError
    request.state.token = Signer(_key(), "ops form", **SIGNING).get_signature(session).decode()
    if request.method != "GET":
        sent = (await fields_of(request)).get("token", "")
        if not secrets.compare_digest(sent.encode(), request.state.token.encode()):
            raise ForeignFormError(FOREIGN)


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of a form, which has two at most. The address has the rest."""
    return dict(parse_qsl((await request.body()).decode("utf-8", "replace")))


def _signer(purpose: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(_key(), purpose, signer_kwargs=SIGNING)


def _key() -> str:
    key = get_settings().api_key
    if key is None:
        raise RuntimeError("there is no page without API_KEY")
    return key.get_secret_value()
