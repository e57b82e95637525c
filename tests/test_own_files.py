"""The files and folders that a user takes over: updates leave them alone, and no others."""

import shutil
from pathlib import Path

import pytest

from tests.services import Service, add_failing_hook, release

PAGE = "app/jobs/README.md"


def test_a_file_that_is_taken_over_is_left_alone(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A hook that fails at each checkout changes nothing: git LFS installs one."""
    service = Service(template, tmp_path / "it").render({"backends": ["arq"]}, "v0.2.0")
    own = ["app/core/arq.py", "app/core/logging.py"]
    for name in own:
        service.append(name, "# mine\n")
    mine = [service.read(name) for name in own]
    add_failing_hook(service.committed().folder)
    service.update(own_files=own)
    assert capfd.readouterr().err.endswith("  uv run poe test\n")
    assert [service.read(name) for name in own] == mine
    service.committed().update(backends=["background"])
    assert [service.read(name) for name in own] == mine
    assert "git checkout HEAD" not in capfd.readouterr().err


def test_a_file_of_the_same_name_in_another_folder_is_updated(
    template: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(template, tmp_path / "template"))
    service = Service(copy, tmp_path / "it").render({"backends": ["background"]})
    mine = service.read("README.md")
    service.committed().update(own_files=["README.md"])
    assert service.git("status", "--porcelain") == [" M .copier-answers.yml"]
    newer = {name: f"Newer {name}\n" for name in ("README.md.jinja", PAGE)}
    release(copy, {f"template/{name}": text for name, text in newer.items()}, "v1000.0.0")
    service.committed().update()
    assert (service.read("README.md"), service.read(PAGE)) == (mine, newer[PAGE])


def test_a_folder_that_is_taken_over_is_left_alone(template: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(template, tmp_path / "template"))
    service = Service(copy, tmp_path / "it").render({"backends": ["background"]})
    service.append(PAGE, "Mine.\n")
    before = service.committed().files()
    service.update(own_files=["app/jobs"])
    assert service.git("status", "--porcelain") == [" M .copier-answers.yml"]
    newer = {f"template/{folder}/__init__.py": "# Newer.\n" for folder in ("app/jobs", "devtools")}
    added = {"template/app/jobs/added.py": "# New.\n"}
    release(copy, newer | added, "v1000.0.0")
    service.committed().update()
    differ = {name for name, text in service.files().items() if before.get(name) != text}
    assert differ == {".copier-answers.yml", "devtools/__init__.py"}
    assert before.keys() == service.files().keys()
