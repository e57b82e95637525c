"""The steps before and after Copier's own work in an update: what they change."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.services import Service, release
from updates import history
from updates.history import ROOT, git


def test_an_update_is_undone_in_the_services_folder_alone(template: Path, tmp_path: Path) -> None:
    folder = tmp_path / "all" / "one"
    service = Service(template, folder).render({"backends": ["arq"]}, "v0.2.0")
    service.replace("Procfile", "WorkerSettings", "WorkerSettings --verbose")
    git(tmp_path / "all", "init", "--quiet")
    (tmp_path / "all" / "other").touch()
    git(tmp_path / "all", "add", "--all")
    before = service.committed().files()
    (tmp_path / "all" / "other").write_text("dirty")
    service.update(backends=["celery"])
    assert service.unmerged() == ["Procfile"]
    page, readme = (ROOT / "docs/updating.md").read_text("utf-8"), service.read("README.md")
    (undo,) = re.findall(r"`(git .+)` undoes it\.", page)
    assert f"To undo an update: `{undo}`." in " ".join(readme.split())
    subprocess.run(undo, shell=True, cwd=folder, check=True)
    assert service.files() == before
    assert git(tmp_path / "all", "status", "--porcelain") == b" M other\n"


@pytest.mark.slow
def test_the_readmes_commands_work_as_they_are_written(template: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(template, tmp_path / "template"))
    service = Service(copy, tmp_path / "it").render({"backends": ["background"]})
    commands = re.findall(
        r"^uv run (poe (?:preview|update)[^#]*?) *#", service.read("README.md"), re.M
    )
    preview, update, ask, take_over = commands
    assert (preview, update, ask) == ("poe preview", "poe update", "poe update --ask backends")
    service.append("app/core/logging.py", "# mine\n")
    release(copy, {"template/devtools/__init__.py": "# Newer.\n"}, "v1000.0.0")
    service.run("uv lock --quiet")
    before = service.committed().files()
    said = service.run(f"uv run {preview}")
    assert " devtools/__init__.py " in said and " 2 files changed" in said
    assert service.files() == before
    service.run(f"uv run {update}")
    assert service.read("devtools/__init__.py") == "# Newer.\n"
    service.committed().run(f"uv run {take_over}")
    assert "- app/core/logging.py" in service.read(".copier-answers.yml")
    assert service.read("app/core/logging.py").endswith("# mine\n")
    # It shows boxes on a terminal. Without one it prints an error, and changes nothing.
    before = service.committed().files()
    assert "Interactive session required" in service.run(f"uv run {ask}", code=1)
    assert service.files() == before


def test_one_that_was_made_of_an_untagged_commit_is_updated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Only what is new in the changelog since that commit is said."""
    template = history.repository(tmp_path / "template")
    git(template, "tag", "--delete", *(f"v{version}" for version in history.versions()))
    history.stage_working_tree(template)
    git(template, "commit", "--quiet", "--message", "Untagged")
    service = Service(template, tmp_path / "it").render({"backends": ["arq"]}, "HEAD")
    assert re.search(r"_commit: [0-9a-f]{7}", service.read(".copier-answers.yml"))
    text = (template / "CHANGELOG.md").read_text("utf-8").replace(UNRELEASED, NEWER, 1)
    (template / "CHANGELOG.md").write_text(text, "utf-8")
    git(template, "commit", "--quiet", "--all", "--message", "Untagged, too")
    capfd.readouterr()
    service.committed().update()
    said = capfd.readouterr().err
    assert "\nBehaves differently than before:\n  - ARQ: it rings.\n\nWhat remains:" in said
    history.commit(template, "v999.0.0")
    service.committed().update()
    assert "_commit: v999.0.0" in service.read(".copier-answers.yml")
    assert "Behaves differently" not in capfd.readouterr().err


def test_a_relative_address_of_the_template_is_stored_as_an_absolute_one(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(template.parent)
    service = Service(Path(template.name), tmp_path / "it").render({"backends": ["background"]})
    assert f"_src_path: {template}\n" in service.read(".copier-answers.yml")
    monkeypatch.chdir(tmp_path)
    service.committed().update(backends=["apscheduler"])
    assert service.unmerged() == []


UNRELEASED = "## [Unreleased]\n"
NEWER = f"""{UNRELEASED}
### Behaves differently

- ARQ: it
  rings.
- Celery: it rings.

### More
"""
PARTS = """
parts:
  type: str
  multiselect: true
  choices: [{choices}]
  default: []
"""
VERSIONS_OF_PYTHON = """  choices: ["3.11", "3.12", "3.13"]
  default: "3.12"
"""


def test_a_renamed_choice_stays_chosen_and_a_new_default_changes_nothing(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(template, tmp_path / "template"))
    questions = (copy / "copier.yml").read_text("utf-8")
    asked = PARTS.format(choices="hello, bye")
    release(copy, {"copier.yml": questions + asked}, "v1000.0.0")
    given = {"backends": ["background"], "parts": ["hello", "bye"]}
    service = Service(copy, tmp_path / "it").render(given, "v1000.0.0")
    (service.folder / ".env").write_text("LEASE=5\n")
    steps = (copy / "updates/steps.py").read_text("utf-8")
    for table, entries in {
        "RENAMED_CHOICES": '{("python_version", "3.12"): "3.12.0", ("parts", "hello"): "hi"}',
        "RENAMED_SETTINGS": '{"LEASE": "LEASE_SECONDS"}',
    }.items():
        steps, count = re.subn(rf"^({table}: .+ = ){{}}$", rf"\1{entries}", steps, flags=re.M)
        assert count == 1
    assert VERSIONS_OF_PYTHON in questions
    renamed = VERSIONS_OF_PYTHON.replace("3.12", "3.12.0", 1).replace('3.12"\n', '3.11"\n')
    questions = questions.replace(VERSIONS_OF_PYTHON, renamed) + PARTS.format(choices="hi, bye")
    release(copy, {"copier.yml": questions, "updates/steps.py": steps}, "v1001.0.0")
    service.committed().update()
    answers = yaml.safe_load(service.read(".copier-answers.yml"))
    assert (answers["python_version"], answers["parts"]) == ("3.12.0", ["hi", "bye"])
    assert 'requires-python = ">=3.12.0,' in service.read("pyproject.toml")
    assert service.read(".copier-answers.yml").startswith("# Written by Copier")
    assert "\n  LEASE is LEASE_SECONDS now\n" in capfd.readouterr().err
