"""OpenAPI names the errors that an operation can answer, and all errors have one form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from app.api.routing import Route
from app.core.requests import HEALTH_CHECKS
from app.core.security import require_operator
from app.dependencies import get_session
from app.main import app
from tests.engine.api.routes import all_in, with_a_broken_route

PATHS = app.openapi()["paths"]
SHOWN = [
    each for each in all_in(app.routes) if isinstance(each, APIRoute) and each.include_in_schema
]
OPERATIONS = {
    f"{method} {each.path_format}": each for each in SHOWN for method in each.methods or ()
}
FOLLOW_ALONE = {401, 404, 413, 429}  # no operation names these for another reason
STATES = (HEALTH_CHECKS[1], 503)  # this answer shows the state of each part


def answers_of(operation: str) -> dict[int, Any]:
    """The answers that the document names."""
    method, _, path = operation.partition(" ")
    named = PATHS[path][method.lower()]["responses"]
    return {int(code): answer for code, answer in named.items()}


def errors_of(route: APIRoute) -> set[int]:
    """The errors that follow from what the operation takes and uses."""
    used = list(calls_of(route.dependant))
    follows = {
        400: True,  # the host
        401: require_operator in used,
        404: "{" in route.path,
        413: route.body_field is not None,
        422: True,  # its path and its query are checked, even if it takes nothing
        429: route.path not in HEALTH_CHECKS,
        503: get_session in used,
    }
    return {code for code, it_does in follows.items() if it_does}


def calls_of(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for each in dependant.dependencies:
        yield from calls_of(each)


def test_each_operation_is_a_route_that_checks_its_requests() -> None:
    assert {type(each) for each in SHOWN} == {Route}
    named = {f"{method.upper()} {path}" for path, methods in PATHS.items() for method in methods}
    assert named == set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_names_its_errors(operation: str) -> None:
    named, follow = set(answers_of(operation)), errors_of(OPERATIONS[operation])
    assert named >= follow
    assert named & FOLLOW_ALONE == follow & FOLLOW_ALONE


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_error_has_the_one_form(operation: str) -> None:
    for code, answer in answers_of(operation).items():
        if code >= 400 and (OPERATIONS[operation].path, code) != STATES:
            form = answer["content"]["application/json"]["schema"]["$ref"]
            assert form.endswith("/Invalid" if code == 422 else "/Refused")


async def test_an_operation_that_takes_nothing_checks_its_query_all_the_same(
    api: httpx.AsyncClient,
) -> None:
    answer = await api.get("/health/live", params={"x": "\0"})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "x"])


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [("GET", "/nothing", 404), ("PUT", "/orders", 405), ("GET", "/broken", 500)],
)
async def test_what_no_operation_answers_has_the_form_too(
    method: str, path: str, code: int
) -> None:
    async with with_a_broken_route() as client:
        answer = await client.request(method, path)
    assert answer.status_code == code
    assert {name: type(value) for name, value in answer.json().items()} == {"detail": str}
