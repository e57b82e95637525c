"""Each back end keeps its promises in its own render, and docs/delivery.md has no others."""

import re
from collections.abc import Iterator

import pytest

from tests.checks import LINK, untested
from tests.conftest import Project
from tests.marks import EACH_BACKEND
from tests.renders import ROOT
from tests.running import conformance

# `-m slow` has each storm on one of both databases, `-m delivery` on both.
ON_SQLITE = ("background", "celery", "apscheduler-4")
ON_POSTGRESQL: tuple[str, ...] = tuple(name for name in EACH_BACKEND.args if name not in ON_SQLITE)


@pytest.mark.delivery
@EACH_BACKEND
def test_delivery_on_sqlite(project: Project) -> None:
    conformance(project, "delivery", "sqlite", "delivery and not slow")


@pytest.mark.delivery
@EACH_BACKEND
def test_delivery_on_postgresql(project: Project) -> None:
    conformance(project, "delivery", "postgresql", "delivery and not slow")


@pytest.mark.delivery
@pytest.mark.slow_in(*ON_SQLITE)
@EACH_BACKEND
def test_a_storm_on_sqlite(project: Project) -> None:
    conformance(project, "delivery", "sqlite", "delivery and slow")


@pytest.mark.delivery
@pytest.mark.slow_in(*ON_POSTGRESQL)
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
