"""Answers errors. `app/schemas/response.py` has the form of the answers."""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import FastAPI, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import ClientDisconnect

from app.core.outages import is_in_the_way, is_outage, is_read_only, may_tell
from app.core.request_ids import HEADER, current_request_id
from app.jobs import (
    InvalidScheduleError,
    JobNotFoundError,
    JobStateError,
    QueueNotFoundError,
    ScheduleConflictError,
    ScheduleNotFoundError,
)
from app.schemas.response import Invalid, Refused
from app.services.orders import IdempotencyConflictError, OrderNotFoundError

log = structlog.get_logger(__name__)

MAX_ERRORS = 20
MAX_TEXT = 300  # characters of a message, or of a field's name
RETRY_AFTER = {"Retry-After": "5"}  # seconds
MEANINGS = {
    400: "Host is none of ALLOWED_HOSTS",
    401: "X-API-Key is missing or wrong",
    404: "There is none",
    409: "Its state doesn't allow this",
    413: "The body is too long",
    422: "What is wrong where",
    429: "Too many requests: ask again after Retry-After seconds",
    503: "Something is away: try again later",
}


def answers(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The errors of an operation, for OpenAPI."""
    return {
        code: {"model": Invalid if code == 422 else Refused, "description": MEANINGS[code]}
        for code in codes
    }


# Errors of tasks, services and the engine. Routes don't catch them.
MISSING: dict[type[Exception], str] = {
    JobNotFoundError: "no such job",
    QueueNotFoundError: "no such queue",
    OrderNotFoundError: "no such order",
    ScheduleNotFoundError: "no such schedule",
}
CONFLICTS: tuple[type[Exception], ...] = (JobStateError, ScheduleConflictError)


def install(api: FastAPI) -> None:
    for missing in MISSING:
        api.add_exception_handler(missing, _missing)
    for conflict in CONFLICTS:
        api.add_exception_handler(conflict, _conflict)
    api.add_exception_handler(InvalidScheduleError, _invalid_schedule)
    api.add_exception_handler(IdempotencyConflictError, _other_body)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(ClientDisconnect, _hung_up)
    api.add_exception_handler(SQLAlchemyError, _unavailable)
    api.add_exception_handler(Exception, _failed)


async def _invalid(request: Request, error: Any) -> JSONResponse:
    """It leaves out the input, which can be long, secret, or no JSON."""
    detail = [
        {
            "loc": [part if isinstance(part, int) else part[:MAX_TEXT] for part in each["loc"]],
            "msg": each["msg"][:MAX_TEXT],
            "type": each["type"],
        }
        for each in error.errors()[:MAX_ERRORS]
    ]
    return JSONResponse({"detail": detail}, status.HTTP_422_UNPROCESSABLE_CONTENT)


async def _missing(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": missing_of(error)}, status.HTTP_404_NOT_FOUND)


def missing_of(error: Exception) -> str | None:
    """The sentence for something that isn't there. It is None for other errors."""
    return next((text for kind, text in MISSING.items() if isinstance(error, kind)), None)


async def _conflict(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status.HTTP_409_CONFLICT)


async def _invalid_schedule(request: Request, error: Any) -> JSONResponse:
    wrong = [{**each, "loc": ("body", *each["loc"])} for each in error.errors]
    return await _invalid(request, RequestValidationError(wrong))


async def _other_body(request: Request, error: Exception) -> JSONResponse:
    wrong = {"loc": ("header", "idempotency-key"), "msg": str(error), "type": "conflict"}
    return await _invalid(request, RequestValidationError([wrong]))


async def _hung_up(request: Request, error: Exception) -> Response:
    """The client hung up during its body. It is no fault, and nobody reads the answer."""
    return Response(status_code=status.HTTP_400_BAD_REQUEST)


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    detail = outage_of(error)
    return JSONResponse({"detail": detail}, status.HTTP_503_SERVICE_UNAVAILABLE, RETRY_AFTER)


def outage_of(error: Exception) -> str:
    """The sentence for what passes, as an outage of the database. Raises other errors again."""
    if not (is_outage(error) or is_read_only(error) or is_in_the_way(error)):
        raise error
    _outage.log(error)
    return "the database can't be used: try again later"


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """It runs outside of all middleware, and so it adds the request's id itself."""
    named = {HEADER: request_id} if (request_id := current_request_id()) else {}
    detail = {"detail": "internal error"}
    return JSONResponse(detail, status.HTTP_500_INTERNAL_SERVER_ERROR, named)


class _Outage:
    """Logs an outage, however many requests it meets, unless this process has just told of one."""

    def __init__(self) -> None:
        self._requests = 0

    def log(self, error: Exception) -> None:
        self._requests += 1
        if may_tell():
            first = repr(error).splitlines()[0]
            log.warning("database.unusable", error=first, requests=self._requests)
            self._requests = 0


_outage = _Outage()
