"""The engine's front door: all that tasks, services and routes need. README.md says the rest."""

from app.jobs.contract import NonRetryable, RetryLater, UnknownTaskError, task
from app.jobs.operations import JobNotFoundError, JobStateError
from app.jobs.outcomes import current_job
from app.jobs.schedules import Schedule
from app.jobs.submit import Job, Jobs
from app.jobs.table import Status
from app.jobs.triggers import CalendarInterval, Cron, Date, Interval

__all__ = [
    "CalendarInterval",
    "Cron",
    "Date",
    "Interval",
    "Job",
    "JobNotFoundError",
    "JobStateError",
    "Jobs",
    "NonRetryable",
    "RetryLater",
    "Schedule",
    "Status",
    "UnknownTaskError",
    "current_job",
    "task",
]
