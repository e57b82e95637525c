"""Finds settings that production lacks, and variables that nothing reads."""

from __future__ import annotations

from collections.abc import AsyncIterator

from app.config import REQUIRED, get_settings, unknown_variables
from app.doctor import Finding


async def examine() -> AsyncIterator[Finding]:
    try:
        get_settings().require(*REQUIRED)
    except SystemExit as wrong:
        for line in str(wrong.code).splitlines():
            yield Finding("settings", line, "an API doesn't start without it")
    for unknown, nearest in unknown_variables():
        is_it = f"is it {nearest}?" if nearest else ""
        yield Finding("settings", f"nothing reads {unknown} of .env", is_it, "note")
