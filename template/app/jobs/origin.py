"""What a job was submitted by. Its row keeps that, and each of its tries logs it."""

from __future__ import annotations

from typing import Any

import structlog

from app.core import tracing
from app.jobs.endings import NAMED
from app.jobs.running import running_job

LONGEST = 200  # characters of a name that came from outside


def origin() -> dict[str, Any] | None:
    """The request, the schedule and the job in which this is called; None outside them all."""
    context = structlog.contextvars.get_contextvars()
    found = {name: str(context[name])[:LONGEST] for name in NAMED if name in context}
    if claim := running_job.get(None):
        found["job_id"] = str(claim.id)
    found |= tracing.here()
    return found or None
