"""The envelope of every answer, what an error is, and rows as answers whatever is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_jsonable_python

from app.core.drivers import Unreadable

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class ApiResponse(BaseModel, Generic[T]):
    data: T


class Page(ApiResponse[list[T]], Generic[T]):
    """A list comes in pages; `next` stays good when rows come, change or go."""

    next: str | None = Field(description="of the next page: ask for it as `after`; null: no more")


class Refused(BaseModel):
    """Every error is `{"detail": ...}`: a sentence, or in a 422 what is wrong where."""

    detail: str


class FieldError(BaseModel):
    """`loc` leads to the field, from `body`, `path`, `query` or `header` on."""

    loc: list[int | str]
    msg: str
    type: str


class Invalid(BaseModel):
    detail: list[FieldError]


def shown(
    model: type[M], values: Mapping[str, Any], stand_ins: Mapping[str, Any]
) -> tuple[M, str | None]:
    """The row, and what is wrong with it: for a wrong value there is its stand-in, or null.

    One that is broken must not hide the others of its list.
    """
    try:
        return _as_answer(model, values), None
    except (ValueError, RecursionError):
        wrong = _wrong(model, values)
    right = {name: value for name, value in values.items() if name not in wrong}
    replaced = {name: stand_ins.get(name) for name in wrong if name in model.model_fields}
    out = _as_answer(model, right | replaced)
    return out, "; ".join(f"{name}: {reason}" for name, reason in wrong.items())


def _as_answer(model: type[M], values: Mapping[str, Any]) -> M:
    """Raises ValueError or RecursionError for what the model doesn't allow, or JSON can't say."""
    for value in values.values():
        if isinstance(value, Unreadable):
            raise ValueError(value.reason)
    out = model.model_validate(values)
    _say(dict(out))
    return out


def _say(value: Any) -> None:
    within = to_jsonable_python([[[[value]]]])  # as deep as in an answer
    json.dumps(within, allow_nan=False, ensure_ascii=False).encode()


def _wrong(model: type[M], values: Mapping[str, Any]) -> dict[str, str]:
    """By name, the reason."""
    found = {name: each.reason for name, each in values.items() if isinstance(each, Unreadable)}
    try:
        model.model_validate({name: each for name, each in values.items() if name not in found})
    except ValidationError as error:
        for each in error.errors(include_url=False):
            found.setdefault(str(each["loc"][0]), f"{each['msg']}, not {each['input']!r:.50}")
    for name in model.model_fields.keys() - found.keys():
        try:
            _say(values.get(name))
        except (ValueError, RecursionError):
            found[name] = "JSON can't say it"
    return found
