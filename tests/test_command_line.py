"""Runs Copier's command as a user types it."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from extensions.context import NAMES
from tests.conftest import read_files
from tests.renders import ROOT, uv_command, uv_environment

COPIER = [str(Path(sys.executable).with_name("copier"))]
COPY = ["copy", "--defaults", "--vcs-ref", "HEAD"]


def copier(*arguments: str, command: list[str] = COPIER) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *arguments], env=environment(), text=True, capture_output=True, timeout=120
    )


def environment() -> dict[str, str]:
    return uv_environment() | {"PYTHONWARNINGS": "ignore", "NO_COLOR": "1"}


def test_the_readmes_command_makes_a_service(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    (command,) = re.findall(r"^ *(uvx .+) \.\./my-service$", readme, re.MULTILINE)
    typed = f'{command} {" ".join(COPY[1:])} "{tmp_path}/my service"'
    done = subprocess.run(
        ["sh", "-c", typed], cwd=ROOT, env=environment(), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my service" / "README.md").is_file()


def test_each_command_asks_for_a_python_that_the_template_runs_on() -> None:
    """Copier itself runs on Python 3.10, which may be the default."""
    places = ["README.md", "docs/updating.md"]
    places += ["template/pyproject.toml.jinja", "template/devtools/preview.py"]
    without_quotes = {p: re.sub("[\"',]", "", (ROOT / p).read_text("utf-8")) for p in places}
    command = "uvx --python >=3.11 --with copier-template-extensions copier"
    assert [place for place, text in without_quotes.items() if command not in text] == []


def test_the_next_two_commands_are_printed(tmp_path: Path) -> None:
    folder = tmp_path / "my service"
    done = copier(*COPY, "--trust", str(ROOT), str(folder))
    assert done.returncode == 0, done.stderr
    first = f"\nNext:\n  cd '{folder}'\n  uv run poe dev\nThen commit it with uv.lock: "
    assert first in done.stderr


def test_without_trust_nothing_runs(tmp_path: Path) -> None:
    done = copier(*COPY, str(ROOT), str(tmp_path / "service"))
    assert done.returncode == 4
    assert "potentially unsafe feature: jinja_extensions" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_the_extension_it_says_what_to_install(tmp_path: Path) -> None:
    bare = [uv_command(), "tool", "run", "--from", f"copier=={version('copier')}", "copier"]
    done = copier(*COPY, "--trust", str(ROOT), str(tmp_path / "service"), command=bare)
    assert done.returncode == 1
    assert "No module named 'copier_template_extensions'" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "backends=arq,celery",
            "backends: must be a list in brackets, for example '[arq, apscheduler]'\n",
        ),
        (
            "backends=[arq, rq]",
            "backends: unknown: 'rq' (there are background, arq, celery, apscheduler)\n",
        ),
        (
            "backends=[]",
            "backends: choose at least one (there are background, arq, celery, apscheduler)\n",
        ),
        ("project_name=two\nlines", "project_name: must be one line of visible characters\n"),
        (
            "project_slug=9lives",
            "project_slug: must be lowercase letters, digits and single hyphens, "
            "and start with a letter\n",
        ),
    ],
    ids=["commas", "unknown", "none", "lines", "slug"],
)
def test_a_bad_answer_is_refused_in_one_line(tmp_path: Path, data: str, message: str) -> None:
    done = copier(*COPY, "--trust", "--data", data, str(ROOT), str(tmp_path / "service"))
    assert (done.returncode, done.stderr) == (1, message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_oldest_copier_that_is_allowed_renders_the_same(tmp_path: Path) -> None:
    floor = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))["_min_copier_version"]
    extensions = f"copier-template-extensions=={version('copier-template-extensions')}"
    tool = [uv_command(), "tool", "run", "--from", f"copier=={floor}", "--with", extensions]
    every = ["--trust", "--data", f"backends=[{', '.join(NAMES)}]", str(ROOT)]
    for folder, command in (("now", COPIER), ("oldest", [*tool, "copier"])):
        done = copier(*COPY, *every, str(tmp_path / folder / "service"), command=command)
        assert done.returncode == 0, done.stderr
    oldest, now = (read_files(tmp_path / folder / "service") for folder in ("oldest", "now"))
    for files in (oldest, now):  # Copier commits uncommitted changes, so each id differs
        files[".copier-answers.yml"] = re.sub("_commit: .+", "", files[".copier-answers.yml"])
    assert oldest == now
