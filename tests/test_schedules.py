"""Each clock keeps the promises about schedules in its own render; the page has no others."""

from pathlib import Path

import pytest

from scripts.schedule_tables import PAGE, rewritten
from tests.checks import LINK, untested
from tests.conftest import Project
from tests.marks import EACH_CLOCK
from tests.renders import RENDERS, render, uv_command
from tests.running import conformance, run

# One clock in the API and one in its own process are enough: to SQLite other clocks are the same.
ON_ONE_MACHINE = pytest.mark.renders("background", "arq-apscheduler")
NEXT_TICK = "tests/engine/jobs/test_next_tick.py"


@pytest.mark.delivery
@ON_ONE_MACHINE
def test_schedules_on_sqlite(project: Project) -> None:
    conformance(project, "schedules", "sqlite", "delivery and not slow")


@pytest.mark.delivery
@EACH_CLOCK
def test_schedules_on_postgresql(project: Project) -> None:
    conformance(project, "schedules", "postgresql", "delivery and not slow")


@pytest.mark.delivery
@EACH_CLOCK
def test_schedules_after_long_outages(project: Project) -> None:
    conformance(project, "schedules", "postgresql", "delivery and slow")


@pytest.mark.parametrize(
    "in_each_zone",
    [
        pytest.param(1_000, marks=pytest.mark.slow, id="four thousand"),
        pytest.param(10_000, marks=pytest.mark.night, id="forty thousand"),
    ],
)
def test_next_tick_on_many_triggers(tmp_path: Path, in_each_zone: int) -> None:
    any_render = RENDERS["background"]
    render(any_render.answers, tmp_path)
    command = ("env", f"SPECS={in_each_zone}", uv_command(), "run", "pytest", NEXT_TICK)
    run(Project(any_render, tmp_path, {}), "next-tick", *command)


def test_the_tables_are_made_by_the_code_that_they_describe() -> None:
    page = PAGE.read_text("utf-8")
    assert page == rewritten(page), "run scripts/schedule_tables.py"
    assert page.count("<br>") > 50


def test_each_promise_has_a_test_that_is_there() -> None:
    page = PAGE.read_text("utf-8")
    _, promises = page.split("| promise | test |\n|---|---|\n")
    rows = promises[: promises.index("\n\n")].splitlines()
    assert len(rows) > 20
    assert all(LINK.search(row) for row in rows)
    assert untested(page) == []
