"""The engine's front door: what tasks, services and routes import. README.md has the rest."""

from app.jobs.contract import NonRetryable, RetryLater, UnknownTaskError, task
from app.jobs.finding import JobFilter, JobPage, StoredJob
from app.jobs.operations import JobNotFoundError, JobStateError, QueueNotFoundError
from app.jobs.running import CurrentJob, current_job
from app.jobs.schedules import (
    InvalidScheduleError,
    Schedule,
    ScheduleConflictError,
    ScheduleNotFoundError,
    StoredSchedule,
)
from app.jobs.submit import Job, Jobs, SyncJobs
from app.jobs.table import Status
from app.jobs.timetable import Schedules
from app.jobs.triggers import CalendarInterval, Cron, Date, Interval, Trigger

__all__ = [
    "CalendarInterval",
    "Cron",
    "CurrentJob",
    "Date",
    "Interval",
    "InvalidScheduleError",
    "Job",
    "JobFilter",
    "JobNotFoundError",
    "JobPage",
    "JobStateError",
    "Jobs",
    "NonRetryable",
    "QueueNotFoundError",
    "RetryLater",
    "Schedule",
    "ScheduleConflictError",
    "ScheduleNotFoundError",
    "Schedules",
    "Status",
    "StoredJob",
    "StoredSchedule",
    "SyncJobs",
    "Trigger",
    "UnknownTaskError",
    "current_job",
    "task",
]
