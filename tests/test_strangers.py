"""At night strange requests are sent to each operation for longer, on both databases."""

import pytest

from tests.conftest import Project
from tests.marks import ASKED
from tests.renders import uv_command
from tests.running import run

EXAMPLES = 300  # requests to each operation, in each mode


@pytest.mark.night
@ASKED
def test_no_answer_is_a_surprise_on_sqlite(project: Project) -> None:
    ask(project, "sqlite")


@pytest.mark.night
@ASKED
def test_no_answer_is_a_surprise_on_postgresql(project: Project) -> None:
    ask(project, "postgresql")


def ask(project: Project, database: str) -> None:
    longer = ("env", f"EXAMPLES={EXAMPLES}", uv_command(), "run", "pytest", "--database", database)
    run(project, f"strangers-{database}", *longer, "tests/engine/api/test_strangers.py")
