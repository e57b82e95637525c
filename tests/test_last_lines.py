"""The last lines that an update prints: what is left to do, and what behaves differently."""

from pathlib import Path
from subprocess import CalledProcessError

import pytest
from copier import run_update

from tests.services import HOW, Service
from updates.history import git

ENDED = """
compose.yaml no longer has these services, but their containers run on. Once their queues are empty,
docker compose up --detach --no-recreate --remove-orphans postgres ends them:
{}

"""


def test_the_last_lines_say_what_is_left_to_do(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A conflict, two removed files that were edited, and a removed file that was not edited."""
    service = Service(template, tmp_path / "it").render({"backends": ["arq"]}, "v0.2.0")
    for name in ("app/core/arq.py", "tests/core/test_arq.py"):
        service.append(name, "# mine\n")
    service.replace("Procfile", "WorkerSettings", "WorkerSettings --verbose")
    (service.folder / ".env").write_text('QUEUES=\'{"default": "arq"}\'\n')
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


def test_what_copier_could_not_apply_is_named(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With `--conflict rej` it is in a file of its own."""
    service = Service(template, tmp_path / "it").render({"backends": ["arq"]}, "v0.2.0")
    service.replace("Procfile", "WorkerSettings", "WorkerSettings --verbose")
    run_update(service.committed().folder, conflict="rej", **HOW)
    said = capfd.readouterr().err
    assert "Apply each, then delete it:\n  Procfile.rej\n" in said
    assert "<<<<<<<" not in said


def test_what_the_old_back_ends_leave_is_named(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is named as the broker or database names it: a queue, a key, a table."""
    chosen = {"backends": ["celery", "apscheduler"], "apscheduler_version": "4"}
    service = Service(template, tmp_path / "it").render(chosen)
    assert '\nSCHEMA = "apscheduler"' in service.read("app/core/shared_scheduler.py")
    capfd.readouterr()
    service.committed().update(celery_broker="rabbitmq")
    said = capfd.readouterr().err
    assert ENDED.format("  valkey") in said
    (in_redis,) = left(said)
    assert in_redis.startswith("in Redis the lists that are named as the queues are, _kombu.* and ")
    assert in_redis.endswith("; in its database 1 celery-task-meta-*")
    (service.folder / ".env").write_text('QUEUES={"celery-like": "background"}\n')
    service.committed().update(backends=["background"])
    said = capfd.readouterr().err
    assert "QUEUES names" not in said
    assert ENDED.format("  flower\n  rabbitmq\n  scheduler\n  worker") in said
    in_postgresql, in_rabbitmq = left(said)
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
