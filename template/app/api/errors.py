"""Turns errors into answers. `app/schemas/response.py` has the form of the answers."""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import FastAPI, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import ClientDisconnect

from app.core.logging import escaped
from app.core.outages import AwayError, is_in_the_way, is_outage, is_read_only, may_tell
from app.core.requests import ID_HEADER, current_request_id
from app.core.security import NotAnOperatorError, TooOftenError
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
MAX_TEXT = 300  # characters of a message
MAX_NAME = 100  # characters of a field's name
RETRY_AFTER = {"Retry-After": "5"}  # seconds
MEANINGS = {
    400: "Host is none of ALLOWED_HOSTS",
    401: "X-API-Key is missing or wrong",
    404: "It doesn't exist",
    409: "Its state doesn't allow this",
    413: "The body is too long",
    422: "What is wrong, and where",
    429: "Too many requests: ask again after Retry-After seconds",
    503: "Something is away: try again later",
}

_untold = 0  # requests that an outage has met since the last line about one


def answers(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The errors of an operation, for OpenAPI."""
    return {
        code: {"model": Invalid if code == 422 else Refused, "description": MEANINGS[code]}
        for code in codes
    }


class NotFoundError(LookupError):
    """A route raises it for what isn't there. The text is for clients."""


# Errors of tasks, services, the engine and `app/core`. Routes don't catch them.
MISSING: dict[type[Exception], str] = {
    JobNotFoundError: "no such job",
    QueueNotFoundError: "no such queue",
    OrderNotFoundError: "no such order",
    ScheduleNotFoundError: "no such schedule",
}
CONFLICTS: tuple[type[Exception], ...] = (JobStateError, ScheduleConflictError)
REFUSED = (*MISSING, NotFoundError, *CONFLICTS, NotAnOperatorError, TooOftenError)
REFUSED += (AwayError, SQLAlchemyError)


def install(api: FastAPI) -> None:
    for refused in REFUSED:
        api.add_exception_handler(refused, _refused)
    api.add_exception_handler(InvalidScheduleError, _invalid_schedule)
    api.add_exception_handler(IdempotencyConflictError, _other_body)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(ClientDisconnect, _hung_up)
    api.add_exception_handler(Exception, _failed)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    code, detail, headers = refusal_of(error)
    return JSONResponse({"detail": detail}, code, headers)


def refusal_of(error: Exception) -> tuple[int, str, dict[str, str]]:
    """How one of REFUSED is answered. Raises an error of the database again if it won't pass."""
    if text := next((text for kind, text in MISSING.items() if isinstance(error, kind)), ""):
        return 404, text, {}
    if isinstance(error, NotFoundError):
        return 404, str(error), {}
    if isinstance(error, CONFLICTS):
        return 409, str(error), {}
    if isinstance(error, NotAnOperatorError):
        return 401, MEANINGS[401], {}
    if isinstance(error, TooOftenError):
        return 429, "too many requests: try again later", {"Retry-After": str(error)}
    return 503, str(error) if isinstance(error, AwayError) else _outage_of(error), RETRY_AFTER


async def _invalid(request: Request, error: Any) -> JSONResponse:
    """It leaves out the input, which can be long, secret, or not JSON."""
    detail = [
        {
            "loc": [p if isinstance(p, int) else _printable(p, MAX_NAME) for p in each["loc"]],
            "msg": _printable(_without_tag(each["msg"]), MAX_TEXT),
            "type": each["type"],
        }
        for each in error.errors()[:MAX_ERRORS]
    ]
    return JSONResponse({"detail": detail}, status.HTTP_422_UNPROCESSABLE_CONTENT)


def _printable(text: str, most: int) -> str:
    return escaped(text[:most])[:most]


def _without_tag(message: str) -> str:
    """This message of pydantic's quotes the input before it says what is expected."""
    tag, _, expected = message.rpartition("' found using ")
    return f"Input tag found using {expected}" if tag.startswith("Input tag '") else message


async def _invalid_schedule(request: Request, error: Any) -> JSONResponse:
    wrong = [{**each, "loc": ("body", *each["loc"])} for each in error.errors]
    return await _invalid(request, RequestValidationError(wrong))


async def _other_body(request: Request, error: Exception) -> JSONResponse:
    wrong = {"loc": ("header", "idempotency-key"), "msg": str(error), "type": "conflict"}
    return await _invalid(request, RequestValidationError([wrong]))


async def _hung_up(request: Request, error: Exception) -> Response:
    """The client hung up during its body. It is no fault, and nobody reads the answer."""
    return Response(status_code=status.HTTP_400_BAD_REQUEST)


def _outage_of(error: Exception) -> str:
    """The sentence for an error that will pass, such as an outage. Raises other errors again.

    It logs outages once a second at most, with the number of requests that met them.
    """
    global _untold
    if not (is_outage(error) or is_read_only(error) or is_in_the_way(error)):
        raise error
    _untold += 1
    if may_tell():
        log.warning("database.unusable", error=repr(error).splitlines()[0], requests=_untold)
        _untold = 0
    return "the database can't be used: try again later"


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """It runs outside of all middleware, and so it adds the request's id itself."""
    named = {ID_HEADER: request_id} if (request_id := current_request_id()) else {}
    detail = {"detail": "internal error"}
    return JSONResponse(detail, status.HTTP_500_INTERNAL_SERVER_ERROR, named)
