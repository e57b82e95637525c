"""Every error is `{"detail": ...}`: a sentence, or in a 422 what is wrong where."""

from __future__ import annotations

from pydantic import BaseModel


class Refused(BaseModel):
    detail: str


class FieldError(BaseModel):
    """`loc` leads to the field, from `body`, `path`, `query` or `header` on."""

    loc: list[int | str]
    msg: str
    type: str


class Invalid(BaseModel):
    detail: list[FieldError]
