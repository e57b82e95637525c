"""A process and all that it started."""

from __future__ import annotations

import psutil


def family(pid: int) -> list[psutil.Process]:
    """The process, its children, and theirs."""
    main = psutil.Process(pid)
    return [main, *main.children(recursive=True)]
