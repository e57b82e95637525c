"""How often one client may ask."""

from __future__ import annotations

import math
import time
from ipaddress import IPv6Address, IPv6Network, ip_address

from fastapi import HTTPException, Request, status
from limits import RateLimitItem, parse_many

from app.config import get_settings
from app.core.counting import counting


class Limit:
    """A dependency: 429 for a client that asks more often than this setting allows.

    `app.api.routing.Router` asks it before it reads the body; it counts a request once.
    """

    def __init__(self, setting: str) -> None:
        self._setting = setting

    async def __call__(self, request: Request) -> None:
        rate, counted = getattr(get_settings(), self._setting), request.scope.setdefault(MARK, [])
        if rate == "off" or self in counted:
            return
        counted.append(self)
        for each in parse_many(rate):
            await _count(each, self._setting, client_of(request))


async def _count(rate: RateLimitItem, *names: str) -> None:
    if await counting.ask(lambda counter: counter.hit(rate, *names)):
        return
    stats = await counting.ask(lambda counter: counter.get_window_stats(rate, *names))
    seconds = max(1, math.ceil(stats.reset_time - time.time()))
    detail, header = "too many requests: try again later", {"Retry-After": str(seconds)}
    raise HTTPException(status.HTTP_429_TOO_MANY_REQUESTS, detail, header)


def client_of(request: Request) -> str:
    """Its address, by uvicorn the proxy's word for it where that is one of FORWARDED_ALLOW_IPS.

    Of IPv6 its /64: that is what one client has to itself.
    """
    host = request.client.host if request.client else ""
    try:
        address = ip_address(host)
    except ValueError:  # a socket's, or a trusted proxy's own name for it
        return host
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or IPv6Network((int(address) >> 64 << 64, 64)))
    return host


MARK = "counted by"
MAIL, REQUESTS = Limit("mail_rate"), Limit("request_rate")
