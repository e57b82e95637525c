"""The schedules of this service. A change here takes effect at `poe migrate` or `poe dev`."""

from __future__ import annotations

from datetime import timedelta

from app.jobs import CalendarInterval, Cron, Interval, Schedule
from app.tasks.maintenance import (
    cleanup_expired_sessions,
    generate_daily_report,
    prune_finished_jobs,
)

SCHEDULES = [
    Schedule("cleanup_sessions", Interval(hours=1), cleanup_expired_sessions),
    Schedule(
        "daily_report",
        Cron("0 6 * * *"),
        generate_daily_report,
        misfire_grace=timedelta(hours=6),
    ),
    Schedule("prune_jobs", CalendarInterval(days=1, hour=3), prune_finished_jobs),
]
