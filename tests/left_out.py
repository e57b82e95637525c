"""Lists the tests of a service that other services run in the same way."""

import re
from collections.abc import Iterable

from tests.marks import ALL
from tests.renders import ROOT, Render

TESTS = ROOT / "template" / "tests" / "{% if engine_tests %}engine{% endif %}"
BACK_ENDS_OWN = re.compile(r"\{% if has_(arq|celery|beat|apscheduler_\d) %\}test_")
RENDERED = re.compile(r"\{% if .+? %\}(.+?)\{% endif %\}")

# Tests of the engine, of `app/core` and of routes in each service. No answer changes their result.
THE_SAME = (
    "jobs",
    *(f"core/test_{name}.py" for name in ("control", "database", "logging", "sqlite")),
    *(f"api/test_{name}.py" for name in ("garbage_rows", "ops", "ops_escaping", "ops_service")),
    *(f"api/test_{name}.py" for name in ("origins", "pages")),
    *(f"api/test_{name}.py" for name in ("production", "refused_bodies", "request_ids")),
    *(f"api/test_{name}.py" for name in ("schedule_refusals", "slow_clients")),
    "api/test_unusable_database.py",
    *(f"devtools/test_{name}.py" for name in ("revisions", "servers")),
    *(f"operations/test_{name}.py" for name in ("cli", "doctor", "many_jobs", "remedies")),
    "operations/test_tables.py",
    "operations/test_terminal.py",
    "test_migrations.py",
    "test_suite.py",
)
RATES = ("api/test_ops_session.py", "api/test_rates.py", "api/test_shared_rates.py")
LAUNCH = ("devtools/test_launch.py",)
TWO = ("background", "apscheduler-4")  # they run on SQLite and on PostgreSQL
# The services that run them. Rates may be counted in Redis; `poe dev` starts each kind of server.
RUN_BY = {THE_SAME: TWO, RATES: (*TWO, "arq"), LAUNCH: (*TWO, "arq", "celery-rabbitmq")}
# The quick run leaves them to the slow one: each starts tens of processes.
SLOW = (
    "devtools",
    *(f"operations/test_{name}.py" for name in ("doctor_service", "many_jobs", "remedies")),
    "operations/test_tables.py",
    "operations/test_terminal.py",
    "api/test_strangers.py",
    "test_broken_tasks.py",
    "test_migrations.py",
    "test_suite.py",
)


def is_named(test: str, names: Iterable[str]) -> bool:
    """Whether one of the names is this test or its first folder."""
    return not {*names}.isdisjoint((test, test.split("/")[0]))


# The quick run has them in one service only. The others that have them run them in the slow run.
# The first have a case for each route, setting, process or part of the README.
IN_PARTS = {
    "background": (
        "test_config.py",
        "test_imports.py",
        "test_readme.py",
        "test_sentry.py",
        "test_tracing.py",
        "core/test_heartbeat.py",
        "core/test_metric_values.py",
        "core/test_metrics.py",
        "operations/test_doctors_redis.py",
        "operations/test_doctors_rabbitmq.py",
    ),
    "apscheduler-4": tuple(name for name in THE_SAME if not is_named(name, SLOW)),
}
PARTS = (*SLOW, *(name for names in IN_PARTS.values() for name in names))
# They run the tests of their back ends, and later those parts.
WHOLE = ("background", "arq", "celery", "celery-rabbitmq", "apscheduler", "apscheduler-4", ALL)
# The slow run has those parts in these. Each route, setting and process of the others is in one of
# them, so that the others can wait for the night.
IN_CI = ("background", "celery-rabbitmq", "apscheduler-4", ALL)


def left_out_of(render: Render) -> list[str]:
    """The tests that needn't run in this service, by their names there.

    Tests of one back end run in services with one back end, and in one with all four. The tests of
    the whole run in every service: processes, queues, jobs, schedules.
    """
    left_out = run_by_others(render) + parts_later(render)
    return left_out if render.name in WHOLE else left_out + of_one_back_end()


def run_by_others(render: Render) -> list[str]:
    """The tests that have the same result in several services, and that others run."""
    of_others = [tests for tests, services in RUN_BY.items() if render.name not in services]
    return [f"engine/{name}" for tests in of_others for name in tests]


def parts_later(render: Render) -> list[str]:
    """The parts that this service runs in the slow run, if at all."""
    later = [SLOW, *(names for name, names in IN_PARTS.items() if name != render.name)]
    return [f"engine/{name}" for names in later for name in names]


def of_one_back_end() -> list[str]:
    """The tests in files that one back end's condition names, by their rendered names."""
    found = [path for path in TESTS.parent.rglob("*") if BACK_ENDS_OWN.match(path.name)]
    return [RENDERED.sub(r"\1", path.relative_to(TESTS.parent).as_posix()) for path in found]
