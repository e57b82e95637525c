"""Prints the results as a table in Markdown."""

from collections.abc import Iterable
from typing import Any

MARK = {True: "yes", False: "no", None: ""}


def print_table(results: Iterable[dict[str, Any]]) -> None:
    print("| measure | case | found | reach | reached |\n|---|---|---|---|---|")
    for each in results:
        cells = (each["measure"], each["case"], each["found"], each["target"])
        print(f"| {' | '.join(cells)} | {MARK[each['reached']]} |")
