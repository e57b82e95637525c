"""Messages to people. At least once: a mail that was sent can't be rolled back."""

from __future__ import annotations

import structlog

from app.jobs import task

log = structlog.get_logger(__name__)


@task(queue="notifications")
def send_email(email: str, message: str) -> dict[str, str]:
    """Sync, so it runs in a thread; put your mail provider's call here, with a timeout."""
    log.info("email sent", to=email, length=len(message))
    return {"sent_to": email}
