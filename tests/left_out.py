"""Which tests of a service other services run in the same way."""

import re

from extensions.context import NAMES
from tests.renders import ROOT, Render

TESTS = ROOT / "template" / "tests" / "{% if engine_tests %}engine{% endif %}"
BACK_ENDS_OWN = re.compile(r"\{% if has_(arq|celery|apscheduler_\d) %\}test_")
RENDERED = re.compile(r"\{% if .+? %\}(.+?)\{% endif %\}")

# Tests of the engine, of the ground and of each service's routes: no answer changes them, and each
# single back end runs them.
THE_SAME = (
    "jobs",
    *(f"core/test_{name}.py" for name in ("control", "database", "logging", "sqlite")),
    *(f"api/test_{name}.py" for name in ("garbage_rows", "pages", "production", "rates")),
    *(f"api/test_{name}.py" for name in ("refused_bodies", "schedule_refusals")),
    "api/test_unusable_database.py",
    "test_migrations.py",
)
WHERE_REDIS_IS = ("api/test_shared_rates.py",)
# By route, by setting, by process: those that have one back end, or all four, run them.
IN_PARTS = ("api/test_strangers.py", "test_config.py", "devtools")


def left_out_of(render: Render) -> list[str]:
    """The tests that other renders run in the same way, by their names in the service.

    What is about one back end runs where it is alone, and where it is among all four. The rest of
    two and three run what is about the whole: processes, queues, jobs, schedules.
    """
    several = len(render.backends) > 1
    left_out = [f"engine/{name}" for name in THE_SAME if several or render.broker == "rabbitmq"]
    left_out += [f"engine/{name}" for name in WHERE_REDIS_IS if several]
    if 1 < len(render.backends) < len(NAMES):
        left_out += [f"engine/{name}" for name in IN_PARTS] + of_one_back_end()
    return left_out


def of_one_back_end() -> list[str]:
    """Tests whose files have one back end as their condition, by their rendered names."""
    found = [path for path in TESTS.parent.rglob("*") if BACK_ENDS_OWN.match(path.name)]
    return [RENDERED.sub(r"\1", path.relative_to(TESTS.parent).as_posix()) for path in found]
