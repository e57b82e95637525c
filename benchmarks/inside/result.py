"""What was found, as a line of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Result:
    measure: str
    case: str
    found: str
    target: str = ""
    reached: bool | None = None


def ratio(measure: str, case: str, both: Sequence[Sequence[float]], target: float) -> Result:
    """Of rounds in turn: the median of their ratios, and the lowest and the highest."""
    service, control = both
    pairs = [ours / theirs for ours, theirs in zip(service, control, strict=True)]
    middle, spread = median(pairs), f"{min(pairs):.2f} to {max(pairs):.2f}"
    rates = f"{median(service):.0f} : {median(control):.0f}"
    found = f"{middle:.2f}x ({spread}); {rates}"
    return Result(measure, case, found, f">= {target:g}x", round(middle, 2) >= target)


def milliseconds(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f}) ms"
