"""Each back end keeps its promises in its own render, and docs/delivery.md tells no other."""

import re
from collections.abc import Iterator

import pytest

from tests.conftest import Project
from tests.renders import ROOT, uv_command
from tests.test_suite import run

EACH_BACKEND = pytest.mark.renders(
    "background", "arq", "celery", "celery-rabbitmq", "apscheduler", "apscheduler-4"
)
LINK = re.compile(r"\[`(\w+)`\]\(<?\.\./(template/tests/[^)>]+)>?\)")


def conformance(project: Project, suite: str, database: str, marks: str) -> None:
    """Run `tests/engine/delivery` or `tests/engine/schedules` of a render."""
    what = f"{suite}-{marks}-{database}".replace(" ", "-")
    command = (uv_command(), "run", "pytest", f"tests/engine/{suite}", "--database", database)
    run(project, what, *command, "-m", marks)


@pytest.mark.delivery
@EACH_BACKEND
def test_delivery_on_sqlite(project: Project) -> None:
    conformance(project, "delivery", "sqlite", "delivery and not slow")


@pytest.mark.delivery
@EACH_BACKEND
def test_delivery_on_postgresql(project: Project) -> None:
    conformance(project, "delivery", "postgresql", "delivery and not slow")


@pytest.mark.slow
@pytest.mark.delivery
@EACH_BACKEND
def test_a_storm_on_sqlite(project: Project) -> None:
    conformance(project, "delivery", "sqlite", "delivery and slow")


@pytest.mark.slow
@pytest.mark.delivery
@EACH_BACKEND
def test_a_storm_on_postgresql(project: Project) -> None:
    conformance(project, "delivery", "postgresql", "delivery and slow")


def test_each_promise_has_a_test_that_is_there() -> None:
    text = (ROOT / "docs" / "delivery.md").read_text("utf-8")
    rows = list(promises(text))
    assert len(rows) > 25
    assert all(LINK.search(row) for row in rows)
    assert untested(text) == []


def promises(page: str) -> Iterator[str]:
    """The rows of the tables whose first column is a promise."""
    for table in re.findall(r"^\| .*promise.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE):
        yield from table.splitlines()


def untested(page: str) -> list[str]:
    """The tests that it names and that aren't there."""
    links = LINK.findall(page)
    return [test for test, path in links if f"def {test}(" not in (ROOT / path).read_text()]
