"""Write what workflows repeat: the name of every render, and in services the pins of the actions.

uv run python -m scripts.workflows
"""

import re
from pathlib import Path

from tests.renders import RENDERS, ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
RENDERED = ROOT / "template" / ".github" / "workflows"
NAMES = re.compile(r"(?<=        name:\n)(?: {10}- .+\n)+")
USES = re.compile(r"(?<=uses: ).+")


def with_matrix(workflow: str) -> str:
    """The workflow's text, with the matrix that the catalogue asks for."""
    names = "".join(f"          - {name}\n" for name in RENDERS)
    text, found = NAMES.subn(names, workflow)
    if found != 1:
        raise ValueError(f"{WORKFLOW.name} has {found} matrices of names")
    return text


def pins_of(workflow: Path) -> dict[str, str]:
    """Each action with the commit and the version that it is used at."""
    return {pin.partition("@")[0]: pin for pin in USES.findall(workflow.read_text("utf-8"))}


def with_pins(workflow: str, pins: dict[str, str]) -> str:
    """The workflow's text, with the actions that have pins at them."""
    return USES.sub(lambda use: pins.get(use[0].partition("@")[0], use[0]), workflow)


def main() -> None:
    """Dependabot sees the template's own workflows, and none with Jinja in it."""
    WORKFLOW.write_text(with_matrix(WORKFLOW.read_text("utf-8")), "utf-8")
    for path in RENDERED.iterdir():
        path.write_text(with_pins(path.read_text("utf-8"), pins_of(WORKFLOW)), "utf-8")


if __name__ == "__main__":
    main()
