"""Checks the text of each rendered service."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tests.checks import none, ruff
from tests.conftest import Project
from tests.marks import ASKED, PLAIN

OWNERS = tomllib.loads((Path(__file__).parent / "files.toml").read_text("utf-8"))
ENGINES = OWNERS.pop("engine_tests")
ENGINES_OWN = re.compile(r"engine|delivery|poe schedules|cronsim|psutil|schemathesis|\nmarkers")
JINJA = re.compile(r"\{%|%\}|\{#|(?<!\$)\{\{|\.jinja\b")

# Each pattern is found where its capability is chosen, and in no other service.
TRACES = {
    "has_background": r"Background[ _]?Tasks?\b|core[./]background\b|['\"]background['\"]",
    "has_arq": r"(?<![a-z])arq(?![a-z])|ArqRedis",
    "has_celery": r"celery|(?<!over)flower|kombu|\bbeat\b",
    "has_apscheduler": r"apscheduler",
    "has_apscheduler_3": r"AsyncIOScheduler|apscheduler\.schedulers|apscheduler>=3",
    "has_apscheduler_4": r"AsyncScheduler|DataStore|EventBroker|sniffio|apscheduler(==| )4",
    "needs_redis": r"redis|valkey",
    "needs_rabbitmq": r"rabbitmq|(?<!celery_app\.)amqp",
}


def test_it_has_exactly_its_files(project: Project) -> None:
    expected = expected_of(project, OWNERS) | expected_of(project, ENGINES)
    missing, unexpected = expected - set(project.files), set(project.files) - expected
    none([f"missing: {name}" for name in sorted(missing)])
    none([f"unexpected: {name}" for name in sorted(unexpected)])


def expected_of(project: Project, files: dict[str, list[str]]) -> set[str]:
    can = {"always": True} | project.render.selection.capabilities()
    return {name for condition, names in files.items() if can[condition] for name in names}


@PLAIN
def test_without_the_tests_of_the_engine_it_is_the_same(project: Project, plain: Project) -> None:
    """Only those tests differ, their requirements, and the settings that mention them."""
    assert set(plain.files) == expected_of(plain, OWNERS)
    changed = {name for name, text in plain.files.items() if text != project.files[name]}
    assert changed == {".copier-answers.yml", "pyproject.toml"}
    assert not ENGINES_OWN.search(plain.files["pyproject.toml"])
    none(ruff(plain.folder, "check", "--quiet", "--output-format=concise"))
    none(ruff(plain.folder, "format", "--quiet", "--diff"))


# The number of all files. The aim is 95. The numbers may be lowered, but not raised.
MOST_FILES = {
    "background": 152,
    "arq": 161,
    "celery": 169,
    "apscheduler": 152,
    "arq-apscheduler": 163,
}
MOST_TEST_LINES = 1000
# Lines of `app/` that are its owner's, without those of the template. They may not grow.
MOST_APP_LINES = {
    "background": 3886,
    "arq": 4689,
    "celery": 5958,
    "apscheduler": 3945,
    "arq-apscheduler": 4811,
}
# Owners needn't open these: `copier update` keeps them up to date. The aim is 95 others.
TEMPLATES_OWN = (
    "app/jobs/",
    "app/ops/",
    "app/cli/",
    "app/doctor/",
    "migrations/jobs/",
    "observability/",
)
MOST_OF_ITS_OWNER = {"celery": 98}


@pytest.mark.renders(*MOST_FILES, also=())
def test_the_default_render_is_small(plain: Project) -> None:
    """A newcomer must be able to read the files that are theirs within an hour."""
    tests = [text for name, text in plain.files.items() if name.startswith("tests/")]
    assert sum(len(text.splitlines()) for text in tests) <= MOST_TEST_LINES
    assert len(plain.files) <= MOST_FILES[plain.name]
    owners = [name for name in plain.files if not name.startswith(TEMPLATES_OWN)]
    assert len(owners) <= MOST_OF_ITS_OWNER.get(plain.name, 95), len(owners)
    app = [name for name in owners if name.startswith("app/") and name.endswith(".py")]
    code = [line for name in app for line in plain.files[name].splitlines()]
    assert len(code) <= MOST_APP_LINES[plain.name], len(code)


def test_whoever_has_workers_starts_them_alone(project: Project) -> None:
    commands = tomllib.loads(project.files["pyproject.toml"])["tool"]["poe"]["tasks"]
    assert ("worker" in commands) == project.render.selection.capabilities()["has_worker"]


def test_no_template_language_is_left(project: Project) -> None:
    """Exceptions: Prometheus's in summaries of alerts, Grafana's in legends, the page's own."""
    theirs = re.compile(r"^\s+(summary|\"legendFormat\"): ", re.MULTILINE)
    left = [line for line in found(project, JINJA) if not line.startswith("app/ops/templates/")]
    none([line for line in left if not theirs.search(line.partition(":")[2])])


def test_only_what_was_chosen_leaves_a_trace(project: Project) -> None:
    can = project.render.selection.capabilities()
    traces = {name: found(project, re.compile(TRACES[name], re.IGNORECASE)) for name in TRACES}
    none([line for name in traces if not can[name] for line in traces[name]])
    none([f"no trace: {name}" for name in traces if can[name] and not traces[name]])


def test_each_setting_and_each_schema_is_used(project: Project) -> None:
    """A setting or a schema is rendered only where something needs it."""
    code = {name: text for name, text in project.files.items() if name.startswith("app/")}
    defined = [
        *re.findall(r"^    (\w+): .+ = ", code["app/config.py"], re.MULTILINE),
        *(
            schema
            for name, text in code.items()
            if name.startswith(("app/api/", "app/schemas/"))
            for schema in re.findall(r"^class (\w+)\(", text, re.MULTILINE)
        ),
    ]
    words = Counter(re.findall(r"\w+", "\n".join(code.values())))
    none([f"{name} is used nowhere" for name in defined if words[name] < 2])
    assert {"max_jobs", "OrderOut"} < set(defined)


def test_each_setting_is_described(project: Project) -> None:
    """By a text below it, or a comment above it. They are the only reference of the settings."""
    code = project.files["app/config.py"]
    (settings,) = [
        node
        for node in ast.parse(code).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    ]
    lines, below = code.splitlines(), dict(pairwise(settings.body))
    fields = [node for node in settings.body if isinstance(node, ast.AnnAssign)]
    bare = [field for field in fields if not is_text(below[field])]
    none([lines[each.lineno - 1] for each in bare if "    # " not in lines[each.lineno - 2]])
    assert len(fields) > 15


def is_text(node: ast.stmt) -> bool:
    """Whether it is a string by itself: a docstring, or the description of what is before it."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def test_it_is_linted_and_formatted(project: Project) -> None:
    none(ruff(project.folder, "check", "--quiet", "--output-format=concise"))
    none(ruff(project.folder, "format", "--quiet", "--diff"))


@ASKED
def test_no_weakness_is_known(project: Project) -> None:
    """These services have every file. Ruff requires a reason beside SQL and URLs that are built."""
    places = [str(project.folder / name) for name in ("app", "devtools", "migrations")]
    command = ["-m", "bandit", "--quiet", "-ll", "--skip", "B310,B608", "-r", *places]
    done = subprocess.run([sys.executable, *command], text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_long(project: Project) -> None:
    lengths = {name: len(text.splitlines()) for name, text in project.files.items()}
    none([f"{name}: {length} lines" for name, length in lengths.items() if length > 250])


def test_type_checking_is_strict(project: Project) -> None:
    settings = tomllib.loads(project.files["pyproject.toml"])["tool"]["mypy"]
    assert settings["strict"] is True
    checked = tuple(settings["files"])
    none([n for n in project.files if n.endswith(".py") and not n.startswith(checked)])


def found(project: Project, pattern: re.Pattern[str]) -> list[str]:
    """The matching names and lines. The template's own path may match, too, and doesn't count."""
    return [
        f"{name}: {line}"
        for name, text in project.files.items()
        for line in [name, *text.splitlines()]
        if pattern.search(line) and not line.startswith("_src_path:")
    ]
