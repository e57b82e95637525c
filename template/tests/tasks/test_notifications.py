from __future__ import annotations

from app.jobs import Status
from app.tasks.notifications import send_email
from tests.jobs import OwnJobs

EMAIL = "a@example.com"


def test_it_sends_an_email() -> None:
    assert send_email(EMAIL, "hello") == {"sent_to": EMAIL}


async def test_its_job_keeps_no_text_once_it_is_sent(own_jobs: OwnJobs) -> None:
    row = await own_jobs.run(send_email, EMAIL, "hello")
    assert (row.status, row.result) == (Status.SUCCEEDED, {"sent_to": EMAIL})
    assert row.args is None
