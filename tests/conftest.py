"""One render a combination: the process that rendered it runs all of its tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.renders import KEPT, RENDERS, ROOT, TESTED, Render, render


@dataclass(frozen=True)
class Project:
    """A rendered service, and its files as they were before anything ran there."""

    render: Render
    folder: Path
    files: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.render.name


def pytest_configure(config: pytest.Config) -> None:
    """`-k arq-celery` means this combination, not each that contains its name."""
    if config.option.keyword in RENDERS:
        config.option.keyword = f"[{config.option.keyword}]"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "project" not in metafunc.fixturenames:
        return
    asked = str(metafunc.config.option.keyword).strip("[]")
    names = [asked] if asked in RENDERS else TESTED
    groups = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names]
    metafunc.parametrize("project", groups, indirect=True, scope="session")


@pytest.fixture(scope="session")
def project(request: pytest.FixtureRequest) -> Project:
    what = RENDERS[request.param]
    folder = ROOT / ".renders" / "tests" / what.name
    (folder / "uv.lock").unlink(missing_ok=True)
    render(what.answers, folder)
    return Project(what, folder, read_files(folder))


def read_files(folder: Path) -> dict[str, str]:
    """Every rendered file by its path."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    named = {path.relative_to(folder): path for path in paths}
    return {
        name.as_posix(): path.read_text("utf-8")
        for name, path in sorted(named.items())
        if name.parts[0] not in KEPT
    }
