"""Answers of `/ops`: they have a strict content policy, and errors are pages, too."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.api.errors import MAX_ERRORS, REFUSED, refusal_of
from app.api.routing import errors_of
from app.core.security import REQUESTS
from app.ops.session import NOTICE, ForeignFormError, NoSessionError, admit, drop, keep, kept
from app.ops.text import environment

FOLDER = Path(__file__).parent
LOGIN = "/ops/login"
LONGEST = 2000  # characters of an address to which a login leads
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}
SAFE = {
    "Content-Security-Policy": "; ".join(f"{what} {where}" for what, where in POLICY.items()),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
UNSTORED = {"Cache-Control": "no-store"}
AGAIN = '<!doctype html><title>One moment</title><meta http-equiv="refresh" content="0">'
REFUSALS: tuple[type[Exception], ...] = (
    *REFUSED,
    RequestValidationError,
    NoSessionError,
    ForeignFormError,
    HTTPException,  # of BodyLimit
)

templates = environment(FOLDER)


class PageRoute(APIRoute):
    """First counts the request, requires a session if need be, and checks the input."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, is_open = super().get_route_handler(), self.path == LOGIN

        async def answer(request: Request) -> Response:
            try:
                await REQUESTS(request)
                if not is_open:
                    await admit(request)
                if errors := await errors_of(request, None):
                    raise RequestValidationError(errors)
                response = await handle(request)
            except REFUSALS as error:
                response = _refusal(request, error)
            response.headers.update(SAFE | UNSTORED)
            return response

        return answer


def router(path: str = "") -> APIRouter:
    prefix = f"/ops{path}"
    return APIRouter(prefix=prefix, include_in_schema=False, route_class=PageRoute)


class Files(StaticFiles):
    """The style sheet, the script and the icon."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(SAFE)
        return response


def render(request: Request, template: str, code: int = 200, **values: Any) -> HTMLResponse:
    notice = kept(request, NOTICE)
    always = {
        "service": request.app.title,
        "path": request.url.path,
        "query": request.url.query,
        "token": getattr(request.state, "token", None),
        "notice": notice,
    }
    response = HTMLResponse(templates.get_template(template).render(always | values), code)
    if notice:
        drop(response, NOTICE)
    return response


def done(request: Request, notice: str, to: str, **query: str) -> RedirectResponse:
    """Redirect to another page, which says once what has been done."""
    response = RedirectResponse(f"{to}?{urlencode(query)}" if query else to, 303)
    keep(request, response, NOTICE, notice)
    return response


def _refusal(request: Request, error: Exception) -> Response:
    """A page that says what is wrong. An error of the program itself is raised again."""
    if isinstance(error, NoSessionError):
        return _ask_to_log_in(request)
    if isinstance(error, ForeignFormError):
        return _problem(request, 403, str(error))
    if isinstance(error, HTTPException):
        return _problem(request, error.status_code, error.detail, error.headers)
    if isinstance(error, RequestValidationError):
        wrong = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()[:MAX_ERRORS]]
        return _problem(request, 422, "; ".join(wrong))
    return _problem(request, *refusal_of(error))


def _problem(
    request: Request, code: int, text: str, headers: Mapping[str, str] | None = None
) -> Response:
    response = render(request, "problem.html", code, problem=text, number=code)
    response.headers.update(headers or {})
    return response


def _ask_to_log_in(request: Request) -> Response:
    """A link on another site sends no strict cookie. Then the page loads itself again."""
    if request.method != "GET":
        return render(request, "login.html", 401, to="/ops", problem="Your session has ended.")
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return HTMLResponse(AGAIN)
    asked = f"{request.url.path}?{request.url.query}".rstrip("?")
    to = asked if len(asked) <= LONGEST else "/ops"
    return RedirectResponse(f"{LOGIN}?{urlencode({'to': to})}", 303)
