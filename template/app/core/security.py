"""Who may use the operator routes."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import Depends, HTTPException, Security, status
from fastapi.security import APIKeyHeader

from app.config import get_settings

api_key_header = APIKeyHeader(name="X-API-Key", auto_error=False)


async def is_operator(key: Annotated[str | None, Security(api_key_header)]) -> bool:
    """Whether the request carries the key; without a key set nobody does."""
    api_key = get_settings().api_key
    if key is None or api_key is None:
        return False
    expected = api_key.get_secret_value()
    return secrets.compare_digest(key.encode(), expected.encode())


async def require_operator(allowed: Annotated[bool, Depends(is_operator)]) -> None:
    if not allowed:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "X-API-Key is missing or wrong")
