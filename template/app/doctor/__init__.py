"""Finds what is wrong with the service, and says what to do, in one line each.

Each subject has a module here. A new module with an `examine` is found by itself. The settings are
read only when it is called, so that it can report wrong ones.
"""

from __future__ import annotations

import asyncio
import pkgutil
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from typing import Literal

from app.cli.output import STYLES, say, show_json
from app.core.loading import load_module

LIMIT = 10  # seconds for a subject; no answer in this time is a fault


@dataclass(frozen=True)
class Finding:
    """A fault must be mended; a note is worth knowing."""

    about: str
    what: str
    todo: str = ""
    level: Literal["fault", "note"] = "fault"


Examine = Callable[[], AsyncIterator[Finding]]


async def examine() -> list[Finding]:
    """Examine all subjects at once. Findings come in the order of the subjects' names."""
    subjects = [module.name for module in pkgutil.iter_modules(__path__)]
    found = await asyncio.gather(*map(_findings, subjects))
    return [finding for each in found for finding in each]


async def _findings(subject: str) -> list[Finding]:
    try:
        module = load_module(f"{__name__}.{subject}")
    except SystemExit as wrong:
        return [Finding(subject, str(wrong.code))]
    return await _within_limit(subject, module.examine) if hasattr(module, "examine") else []


async def _within_limit(subject: str, examine: Examine) -> list[Finding]:
    found = list[Finding]()
    try:
        async with asyncio.timeout(LIMIT):
            async for finding in examine():
                found.append(finding)
    except TimeoutError:
        silent = f"no answer within {LIMIT} s"
        found.append(Finding(subject, silent, "look at its server, and at the network between"))
    except Exception as error:
        found.append(Finding(subject, f"can't be examined: {error!r}", "tell its maintainers"))
    return found


def report(findings: list[Finding], *, as_json: bool) -> int:
    """Write the findings. Returns the exit code."""
    if as_json:
        show_json({"data": [asdict(finding) for finding in findings]})
    for each in [] if as_json else findings:
        todo = f": {each.todo}" if each.todo else ""
        say(
            f"{each.level:5}  {each.about:10}  {each.what.rstrip('.')}{todo}",
            style=STYLES[each.level],
        )
    faults = sum(finding.level == "fault" for finding in findings)
    if not as_json and not faults:
        say("ok     no fault", style="green")
    return 1 if faults else 0
