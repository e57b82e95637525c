"""Write the names of all renders, and the pins of the actions of services, into the workflows.

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
    """The workflow's text, with the names of all renders in its matrix."""
    names = "".join(f"          - {name}\n" for name in RENDERS)
    text, found = NAMES.subn(names, workflow)
    if found != 1:
        raise ValueError(f"{WORKFLOW.name} has {found} matrices of names")
    return text


def pins_of(workflow: Path) -> dict[str, str]:
    """The pin of each action that the workflow uses: its commit and its version."""
    return {pin.partition("@")[0]: pin for pin in USES.findall(workflow.read_text("utf-8"))}


def with_pins(workflow: str, pins: dict[str, str]) -> str:
    """The workflow's text, in which each action with a pin is used at that pin."""
    return USES.sub(lambda use: pins.get(use[0].partition("@")[0], use[0]), workflow)


def main() -> None:
    """Dependabot updates only the template's own workflows: a rendered one may contain Jinja."""
    WORKFLOW.write_text(with_matrix(WORKFLOW.read_text("utf-8")), "utf-8")
    for path in RENDERED.iterdir():
        path.write_text(with_pins(path.read_text("utf-8"), pins_of(WORKFLOW)), "utf-8")


if __name__ == "__main__":
    main()
