"""The engine room: jobs are rows, a queue only carries their ids. Start with `task` and `Jobs`."""

from app.jobs.contract import NonRetryable, RetryLater, task
from app.jobs.outcomes import current_job
from app.jobs.submit import Job, Jobs

__all__ = ["Job", "Jobs", "NonRetryable", "RetryLater", "current_job", "task"]
