"""The router of every module here. It checks a request before FastAPI parses it.

It refuses a body with a value that can't be stored, or couldn't be shown again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import QueryParams

from app.api.errors import answers
from app.core.database import UNKEPT
from app.core.security import REQUESTS, Limit, api_key_header, is_operator, require_operator

MAX_DEPTH = 32
MAX_VALUES = 10_000  # with their names; the event loop waits while they are checked
MAX_INTEGER = 2**63 - 1

Loc = tuple[int | str, ...]
Error = dict[str, Any]

PageLimit = Annotated[int, Query(ge=1, le=1000, description="of a page")]


class Route(APIRoute):
    """First counts the request, requires the operators' key if need be, and checks the input."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        declared = [each.dependency for each in self.dependencies]
        limits = [each for each in declared if isinstance(each, Limit)]
        for_operators = require_operator in declared
        schema = self._schema()

        async def refuse_or_handle(request: Request) -> Response:
            for limit in limits:
                await limit(request)
            if for_operators:
                await require_operator(await is_operator(await api_key_header(request)))
            if errors := await errors_of(request, schema):
                raise RequestValidationError(errors)
            return await handle(request)

        return refuse_or_handle

    def _schema(self) -> TypeAdapter[Any] | None:
        wanted = self.body_field and self.body_field.field_info.annotation
        return TypeAdapter(wanted) if wanted else None


class Router(APIRouter):
    """For routes that take JSON: a form needs FastAPI's own. Health checks aren't `limited`."""

    def __init__(self, *, limited: bool = True, **options: Any) -> None:
        always = answers(422)  # each path and each query is checked
        if limited:
            options["dependencies"] = [Depends(REQUESTS), *options.get("dependencies", [])]
            always |= answers(429)
        options["responses"] = always | options.get("responses", {})
        super().__init__(route_class=Route, **options)


async def errors_of(request: Request, schema: TypeAdapter[Any] | None) -> list[Error]:
    found = errors_in(dict(request.path_params), "path")
    found += errors_in(request.query_params, "query")
    if schema and (body := await request.body()):
        found += errors_in_body(body, schema)
    return found


def errors_in_body(body: bytes, schema: TypeAdapter[Any]) -> list[Error]:
    """What is wrong with a body. It is strict: in JSON `"7"` and `true` aren't numbers."""
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
    """An error for each value that can't be stored, or couldn't be shown again."""
    found = []
    for count, (where, each) in enumerate(_all_in(value, loc)):
        if count == MAX_VALUES:
            return [_error(loc, "too_many", f"over {MAX_VALUES} values")]
        if reason := _unkept(each, where):
            found.append(_error(where, *reason))
    return found


def _all_in(value: Any, loc: Loc) -> Iterator[tuple[Loc, Any]]:
    """Each value and each name. What is nested too deep counts as one value."""
    yield loc, value
    if len(loc) > MAX_DEPTH:
        return
    for name, inner in _members(value):
        if isinstance(name, str):
            yield loc, name
        if not _unkept(name, loc):
            yield from _all_in(inner, (*loc, name))


def _members(value: Any) -> Iterable[tuple[int | str, Any]]:
    if isinstance(value, QueryParams):  # its `items()` has the last value of each name
        return value.multi_items()
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


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
