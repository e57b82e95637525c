"""The steps before and after Copier's own work in an update: what they refuse, change and print."""

import re
import shutil
from pathlib import Path
from subprocess import CalledProcessError

import pytest
import yaml
from copier import run_update
from copier.errors import TaskError, UserMessageError

from tests.services import HOW, Service, release
from updates import history
from updates.history import git


def test_the_last_lines_say_what_is_left_to_do(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A conflict, two removed files that were edited, and a removed file that was not edited."""
    service = Service(template, tmp_path / "it").render({"backends": ["arq"]}, "v0.2.0")
    for name in ("app/core/arq.py", "tests/core/test_arq.py"):
        service.append(name, "# mine\n")
    service.replace("Procfile", "WorkerSettings", "WorkerSettings --verbose")
    (service.folder / ".env").write_text('QUEUES={"default": "arq"}\n')
    service.committed().update(backends=["celery"])
    assert service.unmerged() == ["Procfile"]
    assert "<<<<<<< before updating" in service.read("Procfile")
    said = capfd.readouterr().err
    assert "app/tasks/worker.py" not in said
    assert said.endswith(
        """
To change in .env, and wherever else you set it:
  QUEUES names arq: move its queues

The old back end leaves, for you to remove once no old process runs:
  in Redis the keys arq:*, with the jobs that ArqPool enqueued: they don't run any more

Both you and the template changed these. Mend what is between <<<<<<< and >>>>>>>, then git add:
  Procfile

These are gone, though you had edited them. To bring yours back:
  git checkout HEAD -- app/core/arq.py
  git checkout HEAD -- tests/core/test_arq.py

What remains:
  uv lock
  uv run poe migrate
  uv run poe test
"""
    )
    with pytest.raises(CalledProcessError):
        service.git("commit", "--message", "Unmerged")
    service.git("checkout", "HEAD", "--", "app/core/arq.py")
    assert service.read("app/core/arq.py").endswith("# mine\n")


def test_what_the_old_back_ends_leave_is_named(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is named as the broker or database names it: a queue, a key, a table."""
    chosen = {"backends": ["celery", "apscheduler"], "apscheduler_version": "4"}
    service = Service(template, tmp_path / "it").render(chosen)
    assert '\nSCHEMA = "apscheduler"' in service.read("app/core/shared_scheduler.py")
    capfd.readouterr()
    service.committed().update(celery_broker="rabbitmq")
    (in_redis,) = left(capfd.readouterr().err)
    assert in_redis.startswith("in Redis the lists that are named as the queues are, _kombu.* and ")
    assert in_redis.endswith("; in its database 1 celery-task-meta-*")
    service.committed().update(backends=["background"])
    in_postgresql, in_rabbitmq = left(capfd.readouterr().err)
    assert in_postgresql == "in PostgreSQL the schema apscheduler, with its own schedules"
    assert in_rabbitmq.startswith("in RabbitMQ the queues that are named as those of QUEUES, ")
    assert in_rabbitmq.endswith("the tables celery_taskmeta and celery_tasksetmeta")


def left(said: str) -> list[str]:
    """The printed lines about what the old back ends leave."""
    _, _, lines = said.partition("\nThe old back end leaves, ")
    return [line.strip() for line in lines.partition("\n\n")[0].splitlines()[1:]]


def test_what_behaves_differently_is_said_of_the_chosen_back_ends(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    service = Service(template, tmp_path / "it").render({"backends": ["arq"]}, "v0.1.0")
    service.committed().update()
    said = capfd.readouterr().err
    assert "\n  - ARQ: a worker starts, and runs jobs, while Redis is away." in said
    assert "\n  - In production the API doesn't start without `ALLOWED_HOSTS`" in said
    assert "- Celery: " not in said and "](" not in said
    service.committed().update()
    assert capfd.readouterr().err.endswith("Nothing has changed.\n")


def test_edits_that_were_committed_with_the_render_are_named_too(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The service is in a folder of a larger repository with an uncommitted file elsewhere."""
    folder = tmp_path / "all" / "services" / "one"
    service = Service(template, folder).render({"backends": ["arq"]})
    service.append("app/core/arq.py", "# mine\n")
    git(tmp_path / "all", "init", "--quiet")
    service.committed()
    (tmp_path / "all" / "other").write_text("dirty")
    service.update(backends=["background"])
    assert capfd.readouterr().err.count("git checkout HEAD -- ") == 1
    service.git("checkout", "HEAD", "--", "app/core/arq.py")
    assert service.read("app/core/arq.py").endswith("# mine\n")
    assert (tmp_path / "all" / "other").read_text() == "dirty"


def test_an_edited_file_that_git_ignores_is_refused(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    service = Service(template, tmp_path / "it").render({"backends": ["arq"]}, "v0.2.0")
    service.append(".gitignore", "Procfile\n")
    service.append("Procfile", "more: true\n")
    before = service.committed().files()
    with pytest.raises(TaskError):
        service.update(backends=["celery"])
    refused = "Git ignores Procfile, which the template renders: "
    assert capfd.readouterr().err.splitlines()[-1].startswith(refused)
    assert service.files() == before


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


def test_what_git_cannot_give_back_and_an_older_version_are_refused(
    template: Path, tmp_path: Path
) -> None:
    service = Service(template, tmp_path / "it").render({"backends": ["arq"]}, "v0.2.0")
    with pytest.raises(UserMessageError, match="only supported in git-tracked subprojects"):
        service.update()
    service.committed()
    with pytest.raises(UserMessageError, match="Downgrades are not supported"):
        run_update(service.folder, vcs_ref="v0.1.0", **HOW)
    assert service.git("status", "--porcelain") == []
    service.append("README.md", "dirty\n")
    before = service.files()
    with pytest.raises(UserMessageError, match="Please commit or stash"):
        service.update()
    assert service.files() == before


def test_one_that_was_made_of_an_untagged_commit_is_updated(tmp_path: Path) -> None:
    template = history.repository(tmp_path / "template")
    git(template, "tag", "--delete", *(f"v{version}" for version in history.versions()))
    service = Service(template, tmp_path / "it").render({"backends": ["arq"]}, "HEAD")
    assert re.search(r"_commit: [0-9a-f]{7}", service.read(".copier-answers.yml"))
    history.stage_working_tree(template)
    git(template, "commit", "--quiet", "--message", "Untagged, too")
    service.committed().update()
    assert service.unmerged() == []
    history.commit(template, "v999.0.0")
    service.committed().update()
    assert "_commit: v999.0.0" in service.read(".copier-answers.yml")


def test_a_relative_address_of_the_template_is_stored_as_an_absolute_one(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(template.parent)
    service = Service(Path(template.name), tmp_path / "it").render({"backends": ["background"]})
    assert f"_src_path: {template}\n" in service.read(".copier-answers.yml")
    monkeypatch.chdir(tmp_path)
    service.committed().update(backends=["apscheduler"])
    assert service.unmerged() == []


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
