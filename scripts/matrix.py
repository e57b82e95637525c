"""Write the name of every render into the matrix of the CI workflow."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.renders import RENDERS  # noqa: E402

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
NAMES = re.compile(r"(?<=        name:\n)(?: {10}- .+\n)+")


def with_matrix(workflow: str) -> str:
    """The workflow's text, with the matrix that the catalogue asks for."""
    names = "".join(f"          - {name}\n" for name in RENDERS)
    text, found = NAMES.subn(names, workflow)
    if found != 1:
        raise ValueError(f"{WORKFLOW.name} has {found} matrices of names")
    return text


if __name__ == "__main__":
    WORKFLOW.write_text(with_matrix(WORKFLOW.read_text("utf-8")), "utf-8")
