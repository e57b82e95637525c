"""Marks for tests that run for some renders only."""

import pytest

from extensions.context import NAMES
from tests.renders import RENDERS

ALL = "-".join(NAMES)

SEVERAL = tuple(name for name, what in RENDERS.items() if len(what.backends) > 1)

PLAIN = pytest.mark.renders("background", "arq", "celery", "apscheduler", "arq-apscheduler")

EACH_BACKEND = pytest.mark.renders(
    "background", "arq", "celery", "celery-rabbitmq", "apscheduler", "apscheduler-4"
)

# The clock is the API's, an ARQ worker's, Beat, or APScheduler in the API or in its own process.
EACH_CLOCK = pytest.mark.renders(
    *("background", "arq", "celery", "apscheduler", "arq-apscheduler", "apscheduler-4"),
    "background-apscheduler",  # the clock, and the back end of most jobs beside it
)

ASKED = pytest.mark.renders(*EACH_BACKEND.args, ALL)
