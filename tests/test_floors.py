"""Which files of a rendered service may import which others: those of their level or below it."""

import ast
import re
from collections.abc import Iterator
from pathlib import PurePath

import pytest

from tests.checks import imports_of_tests, none
from tests.conftest import Project

# From the lowest level up. If two names begin a module's name, the longer one counts.
FLOORS = {
    "settings": ["app.config", "app.core.values"],
    "ground": ["app.core"],
    "models": ["app.models"],
    "engine": ["app.jobs"],
    "back ends": [
        *("app.core.arq", "app.core.arq_worker", "app.core.background", "app.core.celery"),
        *("app.core.metrics", "app.core.scheduler", "app.core.shared_scheduler"),
        "app.core.supervisor",
    ],
    "tasks": ["app.tasks"],
    "schemas": ["app.schemas"],
    "services": ["app.services"],
    "API": ["app.api", "app.dependencies", "app.ops"],
    "commands": ["app.doctor", "app.cli"],
    # Processes and commands start with these modules. No other module imports them.
    "entries": [
        *("app.main", "app.migrate", "app.core.scheduler_process", "app.tasks.worker"),
        *("app.core.celery.worker", "app.core.celery.flower"),
    ],
}
LEVELS = {name: level for level, names in enumerate(FLOORS.values()) for name in names}
TOP = len(FLOORS) - 1
SQL_ABOUT_SCHEDULES = re.compile(r"\b(?:from|into|join|update) schedules\b", re.IGNORECASE)
# FastAPI makes any other error a 400 while it reads a body. The page answers this one.
NAMES_HTTP = {"app.core.requests", "app.ops.page"}


def test_files_import_downwards_only(project: Project) -> None:
    modules = {module_of(name): text for name, text in project.files.items() if is_app(name)}
    arrows = [(one, other) for one in modules for other in imported(modules[one], set(modules))]
    none([f"{one} imports {other}" for one, other in arrows if not may_import(one, other)])
    assert len(arrows) > len(modules)


def test_errors_become_answers_in_one_place(project: Project) -> None:
    """An error says what is wrong. `app.api.errors` says which answer that is."""
    code = {module_of(name): text for name, text in project.files.items() if is_app(name)}
    assert {name for name, text in code.items() if "HTTPException" in text} == NAMES_HTTP


def test_no_test_imports_what_another_one_has(project: Project) -> None:
    none(imports_of_tests(project.files))


def test_the_engine_has_two_doors(project: Project) -> None:
    """What an owner has imports the engine's parts from `app.jobs` or `app.jobs.backends` only."""
    code = {module_of(name): text for name, text in project.files.items() if name.endswith(".py")}
    engine = {name for name in code if name.startswith("app.jobs.")}
    inner = engine - {"app.jobs.backends"}
    owners = {name for name in code if not name.startswith(("app.jobs", "tests.engine"))}
    found = [(name, set(imported(code[name], {*engine, "app.jobs"}))) for name in owners]
    none([f"{name} imports {each}" for name, those in found for each in sorted(those & inner)])
    assert any("app.jobs.backends" in those for _, those in found)


def test_one_module_has_the_statements_about_schedules(project: Project) -> None:
    code = {module_of(name): text for name, text in project.files.items() if is_app(name)}
    users = [name for name in code if "app.jobs.table.schedules" in names_of(code[name])]
    assert users == ["app.jobs.schedule_rows"]
    none([name for name, text in code.items() if SQL_ABOUT_SCHEDULES.search(text)])


def test_what_counts_as_an_import_of_a_test() -> None:
    files = {
        "a.py": "from tests.test_b import c",
        "b.py": "from tests.b import test_c",
        "c.py": "from tests import test_b",
        "d.py": "import tests.test_b",
    }
    assert list(imports_of_tests(files)) == [
        *("a.py: from tests.test_b", "c.py: from tests import test_b", "d.py: import tests.test_b")
    ]


@pytest.mark.parametrize(
    ("one", "other", "may"),
    [
        ("app.core.database", "app.config", True),
        ("app.core.database", "app.jobs.table", False),
        ("app.core.arq", "app.jobs.relay", True),
        ("app.jobs.relay", "app.core.arq", False),
        ("app.core.celery.worker", "app.tasks", True),
        ("app.core.celery.pool", "app.tasks", False),
        ("app.tasks", "app.tasks.worker", False),
        ("app.services.orders", "app.api.orders", False),
    ],
)
def test_what_counts_as_upwards(one: str, other: str, may: bool) -> None:
    assert may_import(one, other) is may


def is_app(name: str) -> bool:
    return name.startswith("app/") and name.endswith(".py")


def module_of(name: str) -> str:
    return ".".join(PurePath(name).with_suffix("").parts).removesuffix(".__init__")


def imported(text: str, modules: set[str]) -> Iterator[str]:
    """The service's own modules that a file imports, at its top or within functions."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from modules & {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            parts = {f"{node.module}.{each.name}" for each in node.names}
            yield from modules & parts or {node.module}


def names_of(text: str) -> set[str]:
    """What a file imports by name from a module, with the module before it."""
    froms = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    return {f"{node.module}.{each.name}" for node in froms for each in node.names}


def may_import(one: str, other: str) -> bool:
    return level_of(other) <= level_of(one) and level_of(other) < TOP


def level_of(module: str) -> int:
    names = [name for name in LEVELS if f"{module}.".startswith(f"{name}.")]
    return LEVELS[max(names, key=len)] if names else -1
