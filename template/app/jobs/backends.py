"""The second door: for back ends, for what starts the service, and for operators' routes."""

from app.jobs.contract import Task, find_task, registry
from app.jobs.dispatcher import every_second, is_clock, ping_clock, wake
from app.jobs.host import Host, hosting
from app.jobs.looks import COUNTED, LAZILY, Taken
from app.jobs.outcomes import Claim
from app.jobs.processes import Presence, present
from app.jobs.relay import Bell, InProcess, Message, current_relay, relaying
from app.jobs.schedules import (
    ID_PATTERN,
    MAX_GRACE,
    CatchUp,
    Definition,
    Overlap,
    check_grace,
    definition_of,
    one_line,
)
from app.jobs.table import HEAD_START, MAX_COUNT, clock, jobs, known_tasks, metadata, schedules
from app.jobs.triggers import dump, load, next_tick
from app.jobs.watch import watching

__all__ = [
    "COUNTED",
    "HEAD_START",
    "ID_PATTERN",
    "LAZILY",
    "MAX_COUNT",
    "MAX_GRACE",
    "Bell",
    "CatchUp",
    "Claim",
    "Definition",
    "Host",
    "InProcess",
    "Message",
    "Overlap",
    "Presence",
    "Taken",
    "Task",
    "check_grace",
    "clock",
    "current_relay",
    "definition_of",
    "dump",
    "every_second",
    "find_task",
    "hosting",
    "is_clock",
    "jobs",
    "known_tasks",
    "load",
    "metadata",
    "next_tick",
    "one_line",
    "ping_clock",
    "present",
    "registry",
    "relaying",
    "schedules",
    "wake",
    "watching",
]
