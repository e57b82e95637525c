"""Strange requests to each operation on PostgreSQL, too; at night more of them, on both databases.

At night each row that somebody else wrote is shown, too. By day some of them are.
"""

import pytest

from tests.conftest import Project
from tests.left_out import TWO
from tests.marks import ALL, ASKED
from tests.renders import uv_command
from tests.running import run

EXAMPLES = 300  # requests to each operation, in each mode


@pytest.mark.slow
@pytest.mark.renders(ALL, also=())
def test_no_answer_is_a_surprise_by_day_on_postgresql(project: Project) -> None:
    ask(project, "postgresql")


@pytest.mark.night
@pytest.mark.renders(*TWO, also=())
def test_no_row_harms_others(project: Project) -> None:
    ask(project, project.render.database, "EXAMPLES=9999", test="garbage_rows")


@pytest.mark.night
@ASKED
def test_no_answer_is_a_surprise_on_sqlite(project: Project) -> None:
    ask(project, "sqlite", f"EXAMPLES={EXAMPLES}")


@pytest.mark.night
@ASKED
def test_no_answer_is_a_surprise_on_postgresql(project: Project) -> None:
    ask(project, "postgresql", f"EXAMPLES={EXAMPLES}")


def ask(project: Project, database: str, *settings: str, test: str = "strangers") -> None:
    command = ("env", *settings, uv_command(), "run", "pytest", "--database", database)
    run(project, f"{test}-{database}", *command, f"tests/engine/api/test_{test}.py")
