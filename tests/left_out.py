"""Which tests of a service other services run in the same way."""

import re

from extensions.context import NAMES
from tests.renders import ROOT, Render

TESTS = ROOT / "template" / "tests" / "{% if engine_tests %}engine{% endif %}"
BACK_ENDS_OWN = re.compile(r"\{% if has_(arq|celery|beat|apscheduler_\d) %\}test_")
ALL = "-".join(NAMES)
RENDERED = re.compile(r"\{% if .+? %\}(.+?)\{% endif %\}")

# Tests of the engine, of the ground and of routes that each service has: no answer changes them.
THE_SAME = (
    "jobs",
    *(f"core/test_{name}.py" for name in ("control", "database", "logging", "sqlite")),
    *(f"api/test_{name}.py" for name in ("garbage_rows", "ops", "ops_service", "pages")),
    *(f"api/test_{name}.py" for name in ("production", "refused_bodies", "request_ids")),
    *(f"api/test_{name}.py" for name in ("schedule_refusals", "unusable_database")),
    *(f"operations/test_{name}.py" for name in ("cli", "doctor")),
    "test_migrations.py",
)
RATES = ("api/test_ops_session.py", "api/test_rates.py", "api/test_shared_rates.py")
LAUNCH = ("devtools/test_launch.py",)
TWO = ("background", "apscheduler-4")  # on SQLite, and on PostgreSQL
# Which services run them. Redis counts requests where it is; servers have processes of their own.
RUN_BY = {THE_SAME: TWO, RATES: (*TWO, "arq"), LAUNCH: (*TWO, "arq", "celery-rabbitmq")}
# By route, by setting, by process, by the README's parts.
IN_PARTS = (
    "api/test_strangers.py",
    "test_broken_tasks.py",
    "test_config.py",
    "test_imports.py",
    "test_readme.py",
    "test_sentry.py",
    "test_tracing.py",
    "core/test_heartbeat.py",
    "core/test_metrics.py",
    "devtools",
    "operations/test_doctor_service.py",
    "operations/test_doctors_redis.py",
    "operations/test_doctors_rabbitmq.py",
)
PARTS_NOW = ("background", "arq")
PARTS_LATER = ("celery", "celery-rabbitmq", "apscheduler", "apscheduler-4", ALL)  # marked slow


def left_out_of(render: Render) -> list[str]:
    """The tests that other runs have in the same way, by their names in the service.

    What is about one back end runs where one is alone, and where all four are. So does what is in
    parts, but in two services at once, and in the others in the slow run. The rest run what is
    about the whole: processes, queues, jobs, schedules.
    """
    left_out = run_by_others(render)
    if render.name not in PARTS_NOW:
        left_out += parts()
    if render.name not in (*PARTS_NOW, *PARTS_LATER):
        left_out += of_one_back_end()
    return left_out


def run_by_others(render: Render) -> list[str]:
    """Of what is the same in several services."""
    of_others = [tests for tests, services in RUN_BY.items() if render.name not in services]
    return [f"engine/{name}" for tests in of_others for name in tests]


def parts() -> list[str]:
    return [f"engine/{name}" for name in IN_PARTS]


def of_one_back_end() -> list[str]:
    """Tests whose files have one back end as their condition, by their rendered names."""
    found = [path for path in TESTS.parent.rglob("*") if BACK_ENDS_OWN.match(path.name)]
    return [RENDERED.sub(r"\1", path.relative_to(TESTS.parent).as_posix()) for path in found]
