"""A result as a line of the table."""

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


def ratio(
    measure: str,
    case: str,
    both: Sequence[Sequence[float]],
    least: float | None = None,
    most: float | None = None,
) -> Result:
    """Compare rounds that ran in turn: the median, the lowest and the highest of their ratios."""
    ours, theirs = both
    pairs = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    middle, spread = median(pairs), f"{min(pairs):.2f} to {max(pairs):.2f}"
    found = f"{middle:.2f}x ({spread}); {plain(median(ours))} : {plain(median(theirs))}"
    if least is not None:
        return Result(measure, case, found, f">= {least:g}x", round(middle, 2) >= least)
    if most is not None:
        return Result(measure, case, found, f"<= {most:g}x", round(middle, 2) <= most)
    return Result(measure, case, found)


def plain(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def milliseconds(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f}) ms"
