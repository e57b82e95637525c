"""The engine's second door: for back ends, for operators' routes, and for tests."""

from app.jobs import metrics
from app.jobs.claims import claim
from app.jobs.contract import find_task, registry
from app.jobs.dispatcher import every_second, is_clock, ping_clock, wake
from app.jobs.endings import Ended, Ending, at_each_end
from app.jobs.host import Host, hosting
from app.jobs.looks import COUNTED, LAZILY, Taken
from app.jobs.metrics import Recorder, record_with
from app.jobs.outcomes import write_all
from app.jobs.processes import WAITING, Presence, present, try_to_write
from app.jobs.relay import Bell, InProcess, Message, current_relay, relaying, warn_of_uncommitted
from app.jobs.runner import attempt_alone
from app.jobs.schedules import ID_PATTERN, MAX_GRACE, MAX_ID
from app.jobs.submit import submit_named
from app.jobs.table import HEAD_START, MAX_COUNT, PAUSED, db_time, jobs, known_tasks, metadata
from app.jobs.timetable import agrees, reconcile
from app.jobs.triggers import EPOCH
from app.jobs.watch import new_watch, watch

__all__ = [
    "COUNTED",
    "EPOCH",
    "HEAD_START",
    "ID_PATTERN",
    "LAZILY",
    "MAX_COUNT",
    "MAX_GRACE",
    "MAX_ID",
    "PAUSED",
    "WAITING",
    "Bell",
    "Ended",
    "Ending",
    "Host",
    "InProcess",
    "Message",
    "Presence",
    "Recorder",
    "Taken",
    "agrees",
    "at_each_end",
    "attempt_alone",
    "claim",
    "current_relay",
    "db_time",
    "every_second",
    "find_task",
    "hosting",
    "is_clock",
    "jobs",
    "known_tasks",
    "metadata",
    "metrics",
    "new_watch",
    "ping_clock",
    "present",
    "reconcile",
    "record_with",
    "registry",
    "relaying",
    "submit_named",
    "try_to_write",
    "wake",
    "warn_of_uncommitted",
    "watch",
    "write_all",
]
