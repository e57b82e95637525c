"""A fixture: a copy of the service for `poe dev`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.service import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy, with its own database and its own data of servers."""
    for name in ("app", "devtools", "migrations"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path
