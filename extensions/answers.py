"""Checks the answers to the questions, and writes answers into files.

It imports no other module of the template, for the reason that context.py gives.
"""

import json
import keyword
import re
import shlex
import unicodedata
from collections import ChainMap
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import yaml
from copier.errors import UserMessageError
from copier_template_extensions import ContextHook

HERE: Final = Path(__file__).parent
QUESTIONS: Final = yaml.safe_load((HERE.parent / "copier.yml").read_text("utf-8"))
# Each package that some service locks. A test of the services' locks says which are missing.
PACKAGES: Final = frozenset((HERE / "packages.txt").read_text("utf-8").split())


def toml_string(text: str) -> str:
    """A JSON string, which TOML and YAML accept."""
    return json.dumps(text, ensure_ascii=False)


def python_string(text: str) -> str:
    """A Python literal with the quotes that a formatter would choose."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    escaped = text.replace("\\", "\\\\").replace(quote, f"\\{quote}")
    return f"{quote}{escaped}{quote}"


def slug_of(name: str) -> str:
    """A slug made of the ASCII letters and digits of the name, if it has any."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub("[^a-z0-9]+", "-", ascii_name)[:50].strip("-")
    if not slug:
        return "my-service"
    slug = slug if slug[0].isalpha() else f"app-{slug}"
    return f"{slug}-service" if check_slug(slug) else slug


def check_line(text: object) -> str:
    """Allow joiners, which emoji and some scripts need, but no other invisible character."""
    if not isinstance(text, str):
        return "must be a text"
    visible = all(c.isprintable() or c in "\u200c\u200d" for c in text)
    return "" if visible else "must be one line of visible characters"


def check_name(name: object) -> str:
    if not str(name or "").strip():
        return "must not be empty"
    return "must have at most 60 characters" if len(str(name)) > 60 else check_line(name)


def check_slug(slug: object) -> str:
    if not (isinstance(slug, str) and re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", slug)):
        return "must be lowercase letters, digits and single hyphens, and start with a letter"
    if len(slug) > 63:
        return "must have at most 63 characters"
    taken = keyword.iskeyword(slug) or slug in PACKAGES
    return f"must not be {slug!r}, which Python or a dependency is called" if taken else ""


def choices_of(question: str) -> list[str]:
    """The values that the question offers."""
    choices = QUESTIONS[question]["choices"]
    return list(choices.values() if isinstance(choices, dict) else choices)


def parsed(answer: object) -> object:
    """The value of an answer. From the command line it comes as YAML text; other text is kept."""
    with suppress(yaml.YAMLError):
        return yaml.safe_load(answer) if isinstance(answer, str) else answer
    return answer


def check_backends(answer: object) -> str:
    answer = parsed(answer)
    if not isinstance(answer, list | tuple | set):
        return "must be a list in brackets, for example '[arq, apscheduler]'"
    names = choices_of("backends")
    unknown = ", ".join(repr(name) for name in answer if name not in names)
    problem = f"unknown: {unknown}" if unknown else "" if answer else "choose at least one"
    return problem and f"{problem} (there are {', '.join(names)})"


def check_own_files(answer: object) -> str:
    """Refuse wildcards: each name becomes a pattern of files that aren't rendered."""
    answer = parsed(answer)
    names = answer if isinstance(answer, list) else [""]
    part = r"(?!\.{1,2}(/|$))[\w.-]+"
    plain = all(isinstance(name, str) and re.fullmatch(f"{part}(/{part})*", name) for name in names)
    return "" if plain else "must be a list of files, for example '[app/core/logging.py]'"


def one_of(question: str) -> Callable[[object], str]:
    choices = choices_of(question)
    return lambda answer: "" if str(answer) in choices else f"must be one of {', '.join(choices)}"


def check_flag(answer: object) -> str:
    """Refuse other text than true and false: Copier takes any text as yes."""
    return "" if str(answer).lower() in ("true", "false") else "must be true or false"


CHECKS: Final[Mapping[str, Callable[[object], str]]] = {
    "project_name": check_name,
    "project_slug": check_slug,
    "description": check_line,
    "backends": check_backends,
    "celery_broker": one_of("celery_broker"),
    "apscheduler_version": one_of("apscheduler_version"),
    "python_version": one_of("python_version"),
    "engine_tests": check_flag,
    "own_files": check_own_files,
}


def answered(context: Mapping[str, Any]) -> Mapping[str, object]:
    """The answers so far, in Copier's order: `--data`, the project, the user's settings.

    An answer that is typed at a prompt is added once the question's validator has accepted it.
    """
    conf = context["_copier_conf"]
    settings = conf.get("settings")
    defaults = settings.defaults if settings else {}
    literal = {name: answer for name, answer in defaults.items() if "{" not in str(answer)}
    return ChainMap(conf.get("data") or {}, context.get("_copier_answers", {}), literal)


def refuse_bad(answers: Mapping[str, object]) -> None:
    """Copier itself would end with a traceback at a bad answer that wasn't typed at its prompt."""
    for question, check in CHECKS.items():
        if question in answers and (problem := check(answers[question])):
            raise UserMessageError(f"{question}: {problem}")


def make_absolute(answers: dict[str, object]) -> None:
    """The next update runs in the service's folder, where a relative address would be wrong."""
    address = Path(str(answers.get("_src_path") or "/"))
    if not address.is_absolute() and address.is_dir():
        answers["_src_path"] = str(address.resolve())


class Answers(ContextHook):
    """Refuses bad answers with one line, and gives templates the functions that write answers."""

    def hook(self, context: dict[str, Any]) -> None:
        """Copier calls it for every string that it renders, in every phase."""
        if context.get("_copier_phase") != "migrate":  # a migration may correct stored answers
            refuse_bad(answered(context))
        make_absolute(context.get("_copier_answers", {}))
        context.update(problem_with=CHECKS, python_string=python_string, toml_string=toml_string)
        context["shell_quote"] = lambda path: shlex.quote(str(path))
        context["default_slug"] = slug_of(str(context.get("project_name", "")))
