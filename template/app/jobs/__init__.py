"""The engine's front door: what tasks, services and routes import. README.md has the rest."""

from app.jobs.contract import NonRetryable, RetryLater, Task, UnknownTaskError, task
from app.jobs.finding import JobFilter, JobPage, StoredJob
from app.jobs.operations import JobNotFoundError, JobStateError, QueueNotFoundError
from app.jobs.queues import ProcessState, QueueState
from app.jobs.running import CurrentJob, current_job
from app.jobs.schedules import (
    CatchUp,
    Definition,
    InvalidScheduleError,
    Overlap,
    Schedule,
    ScheduleConflictError,
    ScheduleNotFoundError,
    StoredSchedule,
)
from app.jobs.submit import Job, Jobs, SyncJobs
from app.jobs.table import Status
from app.jobs.timetable import Changes, Schedules
from app.jobs.tries import Try
from app.jobs.triggers import CalendarInterval, Cron, Date, Interval, Trigger

__all__ = [
    "CalendarInterval",
    "CatchUp",
    "Changes",
    "Cron",
    "CurrentJob",
    "Date",
    "Definition",
    "Interval",
    "InvalidScheduleError",
    "Job",
    "JobFilter",
    "JobNotFoundError",
    "JobPage",
    "JobStateError",
    "Jobs",
    "NonRetryable",
    "Overlap",
    "ProcessState",
    "QueueNotFoundError",
    "QueueState",
    "RetryLater",
    "Schedule",
    "ScheduleConflictError",
    "ScheduleNotFoundError",
    "Schedules",
    "Status",
    "StoredJob",
    "StoredSchedule",
    "SyncJobs",
    "Task",
    "Trigger",
    "Try",
    "UnknownTaskError",
    "current_job",
    "task",
]
