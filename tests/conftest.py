"""Renders each combination once: the process that rendered it runs all of its tests."""

import os
import re
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import pytest
from pytest_copie.plugin import Copie
from xdist.scheduler import LoadScopeScheduling

from tests.renders import KEPT, RENDERS, ROOT, TESTED, Render, replace_with
from tests.services import make_template

pytest_plugins = ["tests.ops_browser"]


@dataclass(frozen=True)
class Project:
    """A rendered service, and its files as they were before any command ran there."""

    render: Render
    folder: Path
    files: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.render.name


def pytest_configure(config: pytest.Config) -> None:
    """`-k arq-celery` selects this combination, and none whose name only contains this one."""
    _forget_the_hooks_repository()
    if config.option.keyword in RENDERS:
        config.option.keyword = f"[{config.option.keyword}]"


def _forget_the_hooks_repository() -> None:
    """Let git work in the folder that a test names. A hook's variables would name another one."""
    named = subprocess.check_output(["git", "rev-parse", "--local-env-vars"], text=True)
    for variable in named.split():
        os.environ.pop(variable, None)


# What takes longest begins first, so that no process of pytest is alone at the end.
LONGEST = (
    *("apscheduler-4", "background", "arq", "celery-rabbitmq", "celery"),
    *("test_each_back_end_comes_and_goes", "test_untouched_each_becomes_what_is_rendered_afresh"),
    *RENDERS,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("rendered") and scope_of(item.name) not in RENDERS:
            raise pytest.UsageError(f"{item.nodeid}: a test of a service has no other parameter")
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    name = scope_of(item.name)
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def scope_of(test: str) -> str:
    """The service that a test runs for. Other tests stand for themselves.

    A second parameter would hide the service, and another process would render it meanwhile.
    """
    found = re.search(r"\[(.+)\]$", test)
    return found[1] if found and found[1] in RENDERS else test


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if fixtures := [name for name in ("project", "plain") if name in metafunc.fixturenames]:
        asked = str(metafunc.config.option.keyword).strip("[]")
        names = named(metafunc.definition.get_closest_marker("renders"), asked)
        slow = metafunc.definition.get_closest_marker("slow_in")
        marked = [
            pytest.param(*[name] * len(fixtures), marks=marks_of(name, slow), id=name)
            for name in names
        ]
        metafunc.parametrize(fixtures, marked, indirect=True, scope="session")


def marks_of(name: str, slow: pytest.Mark | None) -> list[pytest.MarkDecorator]:
    return [pytest.mark.rendered, *([pytest.mark.slow] if slow and name in slow.args else [])]


def named(usual: pytest.Mark | None, asked: str) -> Sequence[str]:
    """The renders that a test runs for. `-k` may name any other, unless `also` lists the others."""
    if asked not in RENDERS:
        return usual.args if usual else TESTED
    fits = not usual or "also" not in usual.kwargs or asked in usual.args + usual.kwargs["also"]
    return [asked] if fits else []


class OneProcessARender(LoadScopeScheduling):  # type: ignore[misc]
    """Does what xdist's groups are for: xdist 3.8 can't name its groups under pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> OneProcessARender:
    return OneProcessARender(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    rendered = item.get_closest_marker("rendered")
    if report.failed and isinstance(item, pytest.Function) and rendered:
        name = item.callspec.id
        marks = (mark for mark in ("delivery", "slow") if item.get_closest_marker(mark))
        chosen = f"-m {mark} " if (mark := next(marks, "")) else ""
        report.sections.append((f"{name} alone", f"uv run pytest {chosen}-k {name}"))
    return report


@pytest.fixture(scope="session")
def project(request: pytest.FixtureRequest, copie_session: Copie) -> Project:
    """The service with the tests of the engine."""
    return rendered(RENDERS[request.param], "tests", copie_session)


@pytest.fixture(scope="session")
def plain(request: pytest.FixtureRequest, copie_session: Copie) -> Project:
    """The service as it is rendered by default."""
    what = replace(RENDERS[request.param], engine_tests=False)
    return rendered(what, "plain", copie_session)


def rendered(what: Render, place: str, copie: Copie) -> Project:
    folder = ROOT / ".renders" / place / what.name
    (folder / "uv.lock").unlink(missing_ok=True)
    replace_with(rendered_by(copie, what.answers), folder)
    return Project(what, folder, read_files(folder))


def rendered_by(copie: Copie, answers: Mapping[str, object]) -> Path:
    """The folder of a service with these answers, and with the defaults of other questions."""
    with redirect_stderr(StringIO()):  # Copier prints a line for each file
        result = copie.copy(dict(answers))
    assert result.project_dir, result.exception
    return result.project_dir


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a tag for each release; the newest tag is the working tree."""
    return make_template(tmp_path_factory.mktemp("releases") / "template")


def read_files(folder: Path) -> dict[str, str]:
    """The text of every rendered file, by its path."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    named = {path.relative_to(folder): path for path in paths}
    return {
        name.as_posix(): path.read_text("utf-8")
        for name, path in sorted(named.items())
        if name.parts[0] not in KEPT
    }
