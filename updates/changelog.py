"""What behaves differently since the release that a service had."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]


def differences(others: list[str]) -> list[str]:
    """The changelog's new items, without those whose title is one of the others."""
    if os.environ["VERSION_FROM"] == os.environ["VERSION_TO"]:
        return []
    before = old_changelog()
    released = re.search(r"^## \[(\d[^]]*)\]", before, flags=re.MULTILINE)
    start = released[1] if released else ".".join(os.environ["VERSION_PEP440_FROM"].split(".")[:3])
    known = behaviours(before)
    items = behaviours((TEMPLATE / "CHANGELOG.md").read_text("utf-8"), start)
    titles = tuple(f"- {title}: " for title in others)
    return [item for item in items if item not in known and not item.startswith(titles)]


def old_changelog() -> str:
    """The old version's changelog; empty if it has none, or if the template's clone lacks it."""
    old = f"{os.environ['VERSION_FROM']}:./CHANGELOG.md"
    command = ["git", "-C", str(TEMPLATE), "show", old]
    return subprocess.run(command, capture_output=True).stdout.decode()


def behaviours(changelog: str, start: str = "") -> list[str]:
    """What behaves differently in each release after this one."""
    found: list[str] = []
    for section in re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]:
        if section.startswith(f"[{start}]"):
            break
        _, _, told = section.partition("### Behaves differently\n")
        items = re.split(r"^(?=- )", told.partition("\n### ")[0].strip(), flags=re.MULTILINE)
        found += [without_links(item) for item in items if item]
    return found


def without_links(item: str) -> str:
    """The item on one line, without its links into the template's repository."""
    told = re.sub(r" \(\[[^]]+\]\([^)]+\)\)", "", " ".join(item.split()))
    return re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", told)
