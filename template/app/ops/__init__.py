"""The operators' page. It calls `Jobs` and `Schedules`, as the routes in `app/api` do."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import RedirectResponse

from app.config import get_settings
from app.ops import jobs, login, service
from app.ops.page import FOLDER, Files


def install(api: FastAPI) -> None:
    """Without API_KEY there is no page."""
    if get_settings().api_key is None:
        return
    api.add_api_route("/ops", _first, include_in_schema=False)
    for module in (login, jobs, service):
        api.include_router(module.routes)
    api.mount("/ops/static", Files(directory=FOLDER / "static"))


async def _first() -> RedirectResponse:
    return RedirectResponse("/ops/queues", 303)
