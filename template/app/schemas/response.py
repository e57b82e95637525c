"""The forms of all answers and errors, and rows as answers even if a value can't be read."""

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
    """A page of a list. `next` stays valid when rows are added, changed or deleted."""

    next: str | None = Field(description="the `after` of the next page; null: there is none")


class Refused(BaseModel):
    """Every error has a `detail`: a sentence, or with 422 a list of what is wrong where."""

    detail: str


class FieldError(BaseModel):
    """`loc` is the path to the field. It begins with `body`, `path`, `query` or `header`."""

    loc: list[int | str]
    msg: str
    type: str


class Invalid(BaseModel):
    detail: list[FieldError]


def shown(
    model: type[M], values: Mapping[str, Any], stand_ins: Mapping[str, Any]
) -> tuple[M, str | None]:
    """A row as an answer, and what is wrong with it. A stand-in or null replaces a wrong value.

    So a broken row doesn't hide the other rows of its list.
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
    """Raises ValueError or RecursionError for a value that the model or JSON doesn't allow."""
    for value in values.values():
        if isinstance(value, Unreadable):
            raise ValueError(value.reason)
    out = model.model_validate(values)
    _say(dict(out))
    return out


def _say(value: Any) -> None:
    """Raise unless JSON can say it. NaN becomes null, as in all of pydantic's JSON."""
    within = to_jsonable_python([[[[value]]]], inf_nan_mode="null")  # as deep as in an answer
    json.dumps(within, ensure_ascii=False).encode()


def _wrong(model: type[M], values: Mapping[str, Any]) -> dict[str, str]:
    """The reason for each wrong value, by name."""
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
