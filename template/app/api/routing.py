"""The router of every module here: it refuses before FastAPI parses."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from app.api.errors import answers
from app.core.requests import Error, errors_in, errors_in_body
from app.core.security import REQUESTS, Limit, api_key_header, is_operator, require_operator

PageLimit = Annotated[int, Query(ge=1, le=1000, description="of a page")]


class Route(APIRoute):
    """First counts, then asks for an operator's key, then looks at what came, then is FastAPI's."""

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
    """For JSON. A form's route needs FastAPI's own router. Probes aren't `limited`."""

    def __init__(self, *, limited: bool = True, **options: Any) -> None:
        if limited:
            options["dependencies"] = [Depends(REQUESTS), *options.get("dependencies", [])]
            options["responses"] = answers(429) | options.get("responses", {})
        super().__init__(route_class=Route, **options)


async def errors_of(request: Request, schema: TypeAdapter[Any] | None) -> list[Error]:
    found = errors_in(dict(request.path_params), "path")
    found += errors_in(dict(request.query_params), "query")
    if schema and (body := await request.body()):
        found += errors_in_body(body, schema)
    return found
