"""Checks the arguments of a task, and says what is wrong with them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NotRequired, TypedDict

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
from pydantic_core import CoreConfig, SchemaSerializer, SchemaValidator

MAX_ARGUMENT_BYTES = 64 * 1024


class NotJson(TypeError):  # noqa: N818 - a TypeError for whoever wrote the task
    """A parameter has a type that JSON can't carry."""


def arguments_adapter(own: list[inspect.Parameter], hints: dict[str, Any]) -> TypeAdapter[Any]:
    """What checks a task's arguments. Raises NotJson, PydanticUserError or NameError."""
    fields = {p.name: hints.get(p.name, Any) for p in own}
    optional = {p.name: NotRequired[fields[p.name]] for p in own if p.default is not p.empty}
    arguments = TypedDict("arguments", fields | optional)  # type: ignore[misc]
    limits = ConfigDict(extra="forbid", allow_inf_nan=False)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(with_config(limits)(arguments))
    except PydanticSchemaGenerationError:
        raise NotJson(_not_json(fields)) from None
    with suppress(PydanticInvalidForJsonSchema):
        if "'writeOnly': True" in str(adapter.json_schema()):
            raise NotJson("asterisks replace a secret in JSON; take an id and load it in the task")
    # Its own configuration doesn't reach its errors, which would show the arguments, nor what is
    # dumped, where NaN would become None.
    config = CoreConfig(hide_input_in_errors=True, ser_json_inf_nan="constants")
    adapter.validator = SchemaValidator(adapter.core_schema, config)
    adapter.serializer = SchemaSerializer(adapter.core_schema, config)
    return adapter


def first_wrong(error: ValidationError, hints: Mapping[str, Any]) -> str:
    """Says what is wrong with the first wrong argument, and what to do. It shows no value."""
    first = error.errors()[0]
    place, given = ".".join(map(str, first["loc"])), first["input"]
    if first["type"] == "missing":
        return f"{place} is missing"
    if first["type"].endswith("_type") and place in hints:
        text = f"{place} should be {_name_of(hints[place])}"
    else:
        text = f"{place}: {first['msg']}"
    return f"{text}, got {type(given).__name__}" + ": pass its id" * hasattr(given, "id")


def _not_json(fields: Mapping[str, Any]) -> str:
    for name, hint in fields.items():
        try:
            TypeAdapter(hint)
        except PydanticSchemaGenerationError:
            todo = "arguments are JSON; take its id and load it in the task"
            return f"{name} can't be of type {_name_of(hint)}: {todo}"
    return "arguments are JSON"


def _name_of(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)
