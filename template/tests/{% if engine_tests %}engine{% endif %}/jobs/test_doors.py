"""What the engine's two doors show of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType

import pytest

from app import jobs
from app.jobs import backends

# Rows and claims belong to the engine. What is JSON is named so, and `Any` says nothing.
HIDDEN = re.compile(r"\bRow\b|\bClaim\b|\bdict\[str, Any\]|\bMapping\[str, Any\]")


@pytest.mark.parametrize("door", [jobs, backends])
def test_no_row_no_claim_and_no_untyped_dict_crosses_a_door(door: ModuleType) -> None:
    shown = [each for name in door.__all__ for each in hints_of(name, getattr(door, name))]
    assert len(shown) > 20
    assert [each for each in shown if HIDDEN.search(each)] == []


def test_what_counts_as_shown() -> None:
    shown = list(hints_of("Host", backends.Host))
    assert "Host.hand_back -> None" in shown
    assert not any("_claims" in each or "_run" in each for each in shown)
    assert "StoredJob.origin: Origin" in hints_of("StoredJob", jobs.StoredJob)


def hints_of(name: str, what: object) -> Iterator[str]:
    """The annotations of a function, or of a class with its public methods and fields."""
    own = vars(what) if inspect.isclass(what) else {}
    for field, hint in getattr(what, "__annotations__", {}).items():
        if not field.startswith("_"):
            yield f"{name} -> {hint}" if field == "return" else f"{name}.{field}: {hint}"
    for each, method in own.items():
        if inspect.isfunction(method) and not each.startswith("_"):
            yield from hints_of(f"{name}.{each}", method)
