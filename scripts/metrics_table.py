"""Write the table of metrics in docs/operating.md from the module that counts them.

uv run python -m scripts.metrics_table
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULE = ROOT / "template" / "app" / "jobs" / "metrics.py"
PAGE = ROOT / "docs" / "operating.md"
BLOCK = re.compile(r"(<!-- made by scripts/metrics_table.py -->\n).*?(<!-- end -->)", re.S)


def metrics() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """The name, kind, labels and help text of each metric."""
    for node in ast.walk(ast.parse(MODULE.read_text("utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Metric":
            name, kind, labels, about = (ast.literal_eval(each) for each in node.args)
            yield name, kind, labels, about


def table() -> str:
    lines = ["| metric | kind | labels | what |", "|---|---|---|---|"]
    for name, kind, labels, about in metrics():
        shown = ", ".join(f"`{label}`" for label in labels)
        lines.append(f"| `{name}` | {kind} | {shown} | {about} |")
    return "\n".join(lines)


def rewritten(page: str) -> str:
    """The page with a new table."""
    return BLOCK.sub(lambda found: f"{found[1]}{table()}\n{found[2]}", page)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
