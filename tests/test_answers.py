"""Unusual answers are rendered right, or refused with one clear line."""

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from copier import Settings, run_copy, run_recopy
from copier.errors import UserMessageError
from pytest_copie.plugin import Copie

from tests.checks import none, ruff
from tests.conftest import read_files, rendered_by
from tests.renders import ROOT, render

UNUSUAL = {
    "quotes": """It's "quoted" 'twice'""",
    "backslashes": r"back\slash \n \x \\",
    "braces": "{{ braces }} {% raw %} {# note #} ${PORT} $HOME %(x)s",
    "markup": "<b>bold</b> & `code` | *star* # [link](x)",
    "letters": "Ünïcødé Привет 你好",
    "emoji": "🚀 rocket 👩‍🚀",
    "typography": "It\u2019s \u201ccurly\u201d \u2013 with dashes\u2026 and \u00d7 signs",
    "yaml": "- yes: [no, null] # 'x",
    "digits": "007",
    "longest": "x" * 60,
}
REFUSED: dict[str, tuple[str, Any, str]] = {
    "no-list": ("backends", "arq", "backends: must be a list in brackets"),
    "commas": ("backends", "arq,celery", "backends: must be a list in brackets"),
    "nothing": ("backends", "", "backends: must be a list in brackets"),
    "empty-list": ("backends", "[]", "backends: choose at least one"),
    "open-list": ("backends", "[arq", "backends: must be a list in brackets"),
    "unknown": ("backends", "[arq, rq]", "backends: unknown: 'rq' (there are background, arq"),
    "capitals": ("backends", ["ARQ"], "backends: unknown: 'ARQ'"),
    "broker": ("celery_broker", "kafka", "celery_broker: must be one of redis, rabbitmq"),
    "version": ("apscheduler_version", 5, "apscheduler_version: must be one of 3, 4"),
    "python": ("python_version", "3.10", "python_version: must be one of 3.11"),
    "flag": ("engine_tests", "perhaps", "engine_tests: must be true or false"),
    "own-dot": ("own_files", "[./Procfile]", "own_files: must be a list of files"),
    "own-parent": ("own_files", ["../Procfile"], "own_files: must be a list of files"),
    "own-wildcard": ("own_files", "[app/*.py]", "own_files: must be a list of files"),
    "no-name": ("project_name", " ", "project_name: must not be empty"),
    "long-name": ("project_name", "x" * 61, "project_name: must have at most 60"),
    "lines": ("project_name", "two\nlines", "project_name: must be one line"),
    "escape": ("project_name", "red \x1b[31m", "project_name: must be one line"),
    "direction": ("description", "left \u202e right", "description: must be one line"),
    "description": ("description", "two\r\nlines", "description: must be one line"),
    "slug-digit": ("project_slug", "9lives", "project_slug: must be lowercase"),
    "slug-capital": ("project_slug", "Orders", "project_slug: must be lowercase"),
    "slug-hyphen": ("project_slug", "orders-", "project_slug: must be lowercase"),
    "slug-underscore": ("project_slug", "my_orders", "project_slug: must be lowercase"),
    "slug-letters": ("project_slug", "é", "project_slug: must be lowercase"),
    "slug-newline": ("project_slug", "orders\n", "project_slug: must be lowercase"),
    "slug-long": ("project_slug", "x" * 64, "project_slug: must have at most 63"),
    "slug-keyword": ("project_slug", "class", "project_slug: must not be 'class'"),
    "slug-package": ("project_slug", "fastapi", "project_slug: must not be 'fastapi'"),
    "slug-locked": ("project_slug", "packaging", "project_slug: must not be 'packaging'"),
}


@pytest.mark.parametrize("text", UNUSUAL.values(), ids=UNUSUAL)
def test_rendered_right(copie: Copie, text: str) -> None:
    answers = {"project_name": text, "description": text, "backends": ["background"]}
    folder = rendered_by(copie, answers)
    files = read_files(folder)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["description"] == text
    assert text in python_strings(files)
    assert yaml.safe_load(files[".copier-answers.yml"])["project_name"] == text
    for name in files:
        if name.endswith((".yml", ".yaml")):
            yaml.safe_load(files[name])
    none(ruff(folder, "check", "--quiet", "--output-format=concise"))
    none(ruff(folder, "format", "--quiet", "--diff"))


def python_strings(files: dict[str, str]) -> set[object]:
    trees = [ast.parse(text) for name, text in files.items() if name.endswith(".py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.value for node in nodes if isinstance(node, ast.Constant)}


@pytest.mark.parametrize(("question", "answer", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(copie: Copie, question: str, answer: Any, message: str) -> None:
    refusal = copie.copy({question: answer}).exception
    assert isinstance(refusal, UserMessageError)
    line = str(refusal)
    assert line.startswith(message)
    assert line.isprintable()
    assert written_in(copie.test_dir) == []


UNKNOWN = pytest.raises(UserMessageError, match=r"^backends: unknown: 'rq' \(there are background")


def test_a_file_of_answers_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(UserMessageError, match="must be one of redis"):
        render({"celery_broker": None}, tmp_path / "service")
    with UNKNOWN:
        render({"backends": ["rq"]}, tmp_path / "service")
    assert written_in(tmp_path) == []


def test_a_default_of_the_users_settings_is_checked_too(tmp_path: Path) -> None:
    with UNKNOWN:
        copy_with(tmp_path, {"backends": ["rq"]})
    assert written_in(tmp_path) == []


def test_a_default_of_the_users_settings_counts_where_nothing_else_is_said(tmp_path: Path) -> None:
    copy_with(tmp_path, {"backends": ["rq"], "project_name": "{{ 'X' * 3 }}"}, backends=["arq"])
    stored = yaml.safe_load((tmp_path / ".copier-answers.yml").read_text("utf-8"))
    assert (stored["backends"], stored["project_name"]) == (["arq"], "XXX")


def test_what_a_project_has_stored_is_checked_too(copie: Copie) -> None:
    """Without the check Copier would use the question's default, and delete what was chosen."""
    folder = rendered_by(copie, {"backends": ["arq"]})
    answers = folder / ".copier-answers.yml"
    answers.write_text(answers.read_text("utf-8").replace("- arq", "- rq"), "utf-8")
    with UNKNOWN:
        run_recopy(folder, vcs_ref="HEAD", defaults=True, overwrite=True, quiet=True, unsafe=True)


def copy_with(folder: Path, settings: dict[str, Any], **data: Any) -> None:
    """Render as a user who has these defaults in Copier's settings."""
    run_copy(
        str(ROOT),
        folder,
        data,
        settings=Settings(defaults=settings),
        vcs_ref="HEAD",
        defaults=True,
        quiet=True,
        unsafe=True,
    )


def written_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
