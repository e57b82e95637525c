"""Logs operators in with their key, and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from limits import parse
from starlette.responses import RedirectResponse

from app.api.errors import refusal_of
from app.core.security import TooOftenError, client_of, count, is_operator
from app.ops.page import LOGIN, LONGEST, render, router
from app.ops.session import SESSION, begin, drop, fields_of

TRIES = parse("10/minute")  # of one client

To = Annotated[str, Query(pattern=r"^/ops(/.*)?$", max_length=LONGEST)]

routes = router()


@routes.get("/login")
async def ask(request: Request, to: To = "/ops") -> Response:
    return render(request, "login.html", to=to, problem=None)


@routes.post("/login")
async def log_in(request: Request, to: To = "/ops") -> Response:
    """Each try counts, even one with the right key."""
    try:
        await count(TRIES, "ops login", client_of(request))
    except TooOftenError as refused:
        code, _, headers = refusal_of(refused)
        problem = "Too many tries from your address. Wait a minute, then try again."
        too_often = render(request, "login.html", code, to=to, problem=problem)
        too_often.headers.update(headers)
        return too_often
    if not await is_operator((await fields_of(request)).get("key", "")):
        problem = "This is not the operators' key (API_KEY)."
        return render(request, "login.html", 401, to=to, problem=problem)
    response = RedirectResponse(to, 303)
    begin(request, response)
    return response


@routes.post("/logout")
async def log_out() -> Response:
    response = RedirectResponse(LOGIN, 303)
    drop(response, SESSION)
    return response
