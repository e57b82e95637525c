"""Messages to people. Each is sent at least once: a mail that was sent can't be rolled back."""

from __future__ import annotations

import structlog

from app.jobs import task

log = structlog.get_logger(__name__)


@task(queue="notifications")
def send_email(email: str, message: str) -> dict[str, str]:
    """Put your mail provider's call here, with a timeout. It is sync, so it runs in a thread."""
    log.info("email sent", length=len(message))
    return {"sent_to": email}
