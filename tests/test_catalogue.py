"""The catalogue, the questions and the README say the same."""

import tomllib
from typing import Any

import pytest
import yaml
from jinja2 import Environment, StrictUndefined

from extensions.answers import Answers, python_string, slug_of, toml_string
from extensions.context import (
    APSCHEDULERS,
    BACKENDS,
    BROKERS,
    NAMES,
    PREFERENCES,
    PYTHON_VERSIONS,
    REQUIREMENTS,
    Selection,
    ServiceContext,
    context_of,
)
from tests.renders import RENDERS, ROOT, TESTED, Render

QUESTIONS = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))
EVERY = pytest.mark.parametrize("what", RENDERS.values(), ids=RENDERS)


def test_every_combination_is_there() -> None:
    assert len(RENDERS) == 15 + 4
    assert set(TESTED) <= set(RENDERS)


def test_the_questions_offer_what_the_catalogue_has() -> None:
    assert tuple(QUESTIONS["backends"]["choices"].values()) == NAMES
    assert tuple(QUESTIONS["celery_broker"]["choices"].values()) == BROKERS
    assert tuple(QUESTIONS["apscheduler_version"]["choices"].values()) == APSCHEDULERS
    assert tuple(QUESTIONS["python_version"]["choices"]) == PYTHON_VERSIONS


def test_a_value_that_projects_have_stored_stays() -> None:
    assert NAMES == ("background", "arq", "celery", "apscheduler")
    assert BROKERS == ("redis", "rabbitmq")
    assert APSCHEDULERS == ("3", "4")


def test_the_readme_has_the_catalogues_table() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    rows = [f"| `{b.name}` | {b.title} | {b.advice} |" for b in BACKENDS]
    assert "\n".join(rows) in readme


def test_the_readme_names_every_question() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    asked = [name for name in QUESTIONS if not name.startswith("_")]
    assert [name for name in asked if f"`{name}`" not in readme] == []


def test_every_requirement_has_an_upper_bound() -> None:
    unbound = {"tzdata"}  # it contains only data, and its version is the year
    found = [r for group in REQUIREMENTS.values() for required in group.values() for r in required]
    bound = [r for r in found if ",<" in r or "==" in r]
    assert {r.split(">=")[0] for r in set(found) - set(bound)} == unbound


def test_the_template_checks_with_the_tools_that_it_renders() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    ours = project["dependency-groups"]["dev"]
    shared = ("mypy", "pytest>", "ruff", "zizmor")
    rendered = [r for r in REQUIREMENTS["dev"]["always"] if r.startswith(shared)]
    assert set(rendered) <= set(ours)


@EVERY
def test_each_queue_is_carried_by_a_chosen_back_end(what: Render) -> None:
    queues = what.selection.queues()
    assert list(queues) == ["default", "orders", "notifications", "maintenance", "workflows"]
    assert set(queues.values()) <= set(what.backends)


@EVERY
def test_one_process_ticks(what: Render) -> None:
    known = context_of(what.selection)
    names = [name for name, _ in known["processes"]]
    assert names.count("api") == 1
    assert len(set(names)) == len(names)
    assert ("scheduler" in names) == known["has_scheduler"]
    in_api = known["has_apscheduler"] and not known["has_scheduler_process"]
    assert ("apscheduler" in known["api_backends"]) == in_api
    assert not (known["has_scheduler"] and known["clock_in_api"])


@pytest.mark.parametrize(
    ("backends", "expected"),
    [
        (("background",), ["api"]),
        (("background", "apscheduler"), ["api"]),
        (("arq",), ["api", "worker"]),
        (("celery",), ["api", "worker", "scheduler"]),
        (("arq", "apscheduler"), ["api", "worker", "scheduler"]),
        (NAMES, ["api", "worker-arq", "worker-celery", "scheduler"]),
    ],
)
def test_processes(backends: tuple[str, ...], expected: list[str]) -> None:
    assert [name for name, _ in Selection(backends).processes()] == expected


@pytest.mark.parametrize(
    ("backends", "expected"),
    [
        (("background",), "background"),
        (("background", "arq"), "arq"),
        (("arq", "celery"), "beat"),
        (("celery", "apscheduler"), "apscheduler"),
    ],
)
def test_clock(backends: tuple[str, ...], expected: str) -> None:
    assert Selection(backends).clock() == expected


@pytest.mark.parametrize(
    ("backends", "broker", "redis", "rabbitmq"),
    [
        (("background", "apscheduler"), "rabbitmq", False, False),
        (("celery",), "redis", True, False),
        (("celery",), "rabbitmq", False, True),
        (("arq", "celery"), "rabbitmq", True, True),
    ],
)
def test_servers(backends: tuple[str, ...], broker: str, redis: bool, rabbitmq: bool) -> None:
    selection = Selection(backends, broker)
    can = selection.capabilities()
    assert (can["needs_redis"], can["needs_rabbitmq"]) == (redis, rabbitmq)
    packages = " ".join(selection.dependencies("service") + selection.dependencies("embedded"))
    assert ("redis" in packages, "valkey" in packages) == (redis, redis)


def test_every_preference_names_every_back_end_once() -> None:
    assert all(sorted(names) == sorted(NAMES) for names in PREFERENCES.values())


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("plain", '"plain"'),
        ("it's", '"it\'s"'),
        ('a "quoted" one', "'a \"quoted\" one'"),
        ("both ' and \"", '"both \' and \\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("{{ braces }}", '"{{ braces }}"'),
        ("🚀 café", '"🚀 café"'),
    ],
)
def test_strings(text: str, literal: str) -> None:
    assert python_string(text) == literal
    assert tomllib.loads(f"text = {toml_string(text)}") == {"text": text}
    assert yaml.safe_load(toml_string(text)) == text


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My Service", "my-service"),
        ("Café  No. 9!", "cafe-no-9"),
        ("3D prints", "app-3d-prints"),
        ("Привет", "my-service"),
        ("🚀", "my-service"),
        ("Celery", "celery-service"),
        ("Packaging", "packaging-service"),
        ("class", "class-service"),
        ("ﷺ" * 60, slug_of("ﷺ" * 60)),
    ],
)
def test_a_slug_is_derived(name: str, slug: str) -> None:
    assert slug_of(name) == slug
    assert rendered("{{ problem_with.project_slug(default_slug) }}", project_name=name) == ""


@pytest.mark.parametrize("backends", [None, "[arq]", []], ids=["unasked", "text", "none chosen"])
def test_before_the_answer_nothing_is_known(backends: object) -> None:
    answers = {} if backends is None else {"backends": backends}
    assert rendered("{{ has_arq is defined }}", **answers) == "False"


def test_capabilities_are_known_after_the_answer() -> None:
    template = "{{ has_arq }} {{ has_celery }} {{ has_apscheduler_3 }} {{ has_apscheduler_4 }}"
    known = rendered(template, backends=["arq", "apscheduler"], apscheduler_version="4")
    assert known == "True False False True"


def rendered(template: str, **answers: Any) -> str:
    environment = Environment(
        extensions=[ServiceContext, Answers], undefined=StrictUndefined, autoescape=False
    )
    return environment.from_string(template).render(_copier_conf={"data": {}}, **answers)
