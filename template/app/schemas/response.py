"""The envelope of every answer."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, Field

T = TypeVar("T")


class ApiResponse(BaseModel, Generic[T]):
    data: T


class Page(ApiResponse[list[T]], Generic[T]):
    """A list comes in pages; `next` stays good when rows come, change or go."""

    next: str | None = Field(description="of the next page: ask for it as `after`; null: no more")
