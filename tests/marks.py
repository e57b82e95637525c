"""The renders that a group of tests is about, where it is not about all of them."""

import pytest

from tests.renders import RENDERS

THREE = tuple(name for name, what in RENDERS.items() if len(what.backends) == 3)

PLAIN = pytest.mark.renders("background", "arq", "celery", "apscheduler", "arq-apscheduler")

EACH_BACKEND = pytest.mark.renders(
    "background", "arq", "celery", "celery-rabbitmq", "apscheduler", "apscheduler-4"
)

# The API alone, a worker's loop, Beat, APScheduler in the API, and in a process of its own.
EACH_CLOCK = pytest.mark.renders(
    "background", "arq", "celery", "apscheduler", "arq-apscheduler", "apscheduler-4"
)

ASKED = pytest.mark.renders(
    "background",
    "arq",
    "celery",
    "celery-rabbitmq",
    "apscheduler",
    "apscheduler-4",
    "background-arq-celery-apscheduler",
)
