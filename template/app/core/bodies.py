"""What each request must be, whatever its schema: not too long, and text that can be kept."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from fastapi import HTTPException, status
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_DEPTH = 32
MAX_VALUES = 10_000  # with their names; the event loop waits while they are looked at
MAX_INTEGER = 2**63 - 1
# PostgreSQL keeps no NUL, and half of a surrogate pair can't be written as UTF-8.
UNKEPT = re.compile("[\0\ud800-\udfff]")

Loc = tuple[int | str, ...]
Error = dict[str, Any]


class BodyLimit:
    """413 as soon as more than the limit was announced or read; a chunked body announces nothing.

    It only counts: who answers without the body never waits for it.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        announced, read = int(Headers(scope=scope).get("content-length", 0)), 0

        async def counted() -> Message:
            nonlocal read
            self._check(announced)
            message = await receive()
            read += len(message.get("body", b""))
            self._check(read)
            return message

        await self._app(scope, counted, send)

    def _check(self, size: int) -> None:
        if size > self._limit:
            detail = f"the body is over {self._limit} bytes"
            raise HTTPException(status.HTTP_413_CONTENT_TOO_LARGE, detail)


def errors_in_body(body: bytes, schema: TypeAdapter[Any]) -> list[Error]:
    """What is wrong with it as JSON: `"7"` and `true` are no numbers there, a date is a string."""
    try:
        found = errors_in(json.loads(body), "body")
        if not found:
            schema.validate_json(body, strict=True)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        return [{**each, "loc": ("body", *each["loc"])} for each in wrong]
    except (ValueError, RecursionError):
        return [_error(("body",), "json_invalid", "not valid JSON")]
    return found


def errors_in(value: Any, *loc: int | str) -> list[Error]:
    """Where it holds what can't be stored, or couldn't be shown again."""
    found = []
    for count, (where, each) in enumerate(_all_in(value, loc)):
        if count == MAX_VALUES:
            return [_error(loc, "too_many", f"over {MAX_VALUES} values")]
        if reason := _unkept(each, where):
            found.append(_error(where, *reason))
    return found


def _all_in(value: Any, loc: Loc) -> Iterator[tuple[Loc, Any]]:
    """Each value, and each name; what is nested too deep is one value."""
    yield loc, value
    if not isinstance(value, dict | list) or len(loc) > MAX_DEPTH:
        return
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(name, str):
            yield loc, name
        if not _unkept(name, loc):
            yield from _all_in(inner, (*loc, name))


def _unkept(value: Any, loc: Loc) -> tuple[str, str] | None:
    if isinstance(value, str) and UNKEPT.search(value):
        return "text", "has a NUL or half of a surrogate pair"
    if isinstance(value, float) and not math.isfinite(value):
        return "finite_number", "not a finite number"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return "integer", "does not fit into 64 bits"
    if isinstance(value, dict | list) and len(loc) > MAX_DEPTH:
        return "depth", f"nested over {MAX_DEPTH} deep"
    return None


def _error(loc: Loc, kind: str, message: str) -> Error:
    return {"loc": loc, "msg": message, "type": kind}
