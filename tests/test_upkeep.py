"""The lock and the hooks, which keep a rendered service in order."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pytest_copie.plugin import Copie

from tests.conftest import rendered_by
from tests.renders import ROOT, uv_command, uv_environment

HOOKS = ROOT / "template" / ".pre-commit-config.yaml"
REFUSAL = "error: The lockfile at `uv.lock` needs to be updated"
ADVICE = "run `uv lock`"
CONFLICT = "<<<<<<< before updating\nmine\n=======\ntheirs\n>>>>>>> after updating\n"


def test_a_lock_that_does_not_fit_is_refused(copie: Copie) -> None:
    """The image and CI refuse it: an old lock lacks requirements that were added since."""
    folder = rendered_by(copie, {"backends": ["background"]})
    image, project = sync_of_the_image(folder), folder / "pyproject.toml"
    subprocess.run([uv_command(), "lock", "-q"], cwd=folder, env=uv_environment(), check=True)
    done = in_shell(f"{image} --dry-run", folder, {})
    assert done.returncode == 0, done.stderr

    old = "\ndependencies = ["
    project.write_text(project.read_text("utf-8").replace(old, f'{old}"arq",'), "utf-8")
    workflow = yaml.safe_load((folder / ".github/workflows/ci.yml").read_text("utf-8"))
    for command, settings in ((image, {}), ("uv run true", workflow["env"])):
        done = in_shell(command, folder, settings)
        assert done.returncode != 0
        assert REFUSAL in done.stderr
        assert ADVICE in done.stderr


def test_ci_finds_a_library_that_production_lacks(copie: Copie) -> None:
    """Tests and mypy have the group `dev`, so that they miss nothing."""
    folder = rendered_by(copie, {"backends": ["background"]})
    subprocess.run([uv_command(), "lock", "-q"], cwd=folder, env=uv_environment(), check=True)
    workflow = yaml.safe_load((folder / ".github/workflows/ci.yml").read_text("utf-8"))
    runs = [step.get("run", "") for step in workflow["jobs"]["lint"]["steps"]]
    (command,) = [each for each in runs if "--no-dev" in each]
    done = in_shell(command, folder, workflow["env"])
    assert done.returncode == 0, done.stderr
    (folder / "app" / "tasks" / "webhooks.py").write_text("import httpx\n")
    done = in_shell(command, folder, workflow["env"])
    assert done.returncode != 0
    assert "No module named 'httpx'" in done.stderr


def test_the_image_has_the_command(copie: Copie, tmp_path: Path) -> None:
    """The image installs the dependencies first, and then the code, in place."""
    folder = rendered_by(copie, {"backends": ["background"]})
    subprocess.run([uv_command(), "lock", "-q"], cwd=folder, env=uv_environment(), check=True)
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(folder / name, tmp_path)
    assert in_shell(sync_of_the_image(folder), tmp_path, {}).returncode == 0
    for name in ("app", "migrations"):
        shutil.copytree(folder / name, tmp_path / name)
    (install,) = re.findall(r"(uv sync .+?) &&", (folder / "Dockerfile").read_text("utf-8"))
    done = in_shell(f"{install} --offline && .venv/bin/jobs --help", tmp_path, {})
    assert done.returncode == 0, done.stderr
    assert "Usage: jobs" in done.stdout


def sync_of_the_image(folder: Path) -> str:
    """The command by which the Dockerfile installs dependencies if a lock is committed."""
    image = (folder / "Dockerfile").read_text("utf-8")
    (command,) = re.findall(r"if \[ -e uv\.lock \]; then (uv sync .+?);", image)
    return str(command)


def in_shell(
    command: str, folder: Path, settings: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    environment = uv_environment() | settings
    return subprocess.run(
        ["sh", "-c", command.replace("uv", uv_command(), 1)],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
    )


@pytest.mark.parametrize(
    ("name", "text", "refused"),
    [
        ("notes.md", "A title\n=======\n", []),
        ("app/main.py", CONFLICT, ["conflict-markers"]),
        ("app/main.py.rej", "@@ -1 +1 @@\n", ["rejected-hunks"]),
    ],
    ids=["neither", "conflict", "rejected"],
)
def test_a_commit_with_remains_of_an_update_is_refused(
    tmp_path: Path, name: str, text: str, refused: list[str]
) -> None:
    shutil.copy(HOOKS, tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text, "utf-8")
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    failed = {hook for hook in ("conflict-markers", "rejected-hunks") if fails(hook, tmp_path)}
    assert failed == set(refused)


def fails(hook: str, folder: Path) -> bool:
    program = Path(sys.executable).with_name("pre-commit")
    done = subprocess.run(
        [program, "run", hook, "--all-files"],
        cwd=folder,
        env=uv_environment() | {"PRE_COMMIT_HOME": str(folder / ".git" / "hooks.cache")},
        text=True,
        capture_output=True,
    )
    assert ("Failed" in done.stdout) == (done.returncode == 1), done.stdout + done.stderr
    return done.returncode == 1


def test_every_hook_needs_nothing_but_the_project() -> None:
    (repository,) = yaml.safe_load(HOOKS.read_text("utf-8"))["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        if hook["language"] == "system":
            assert hook["entry"].startswith("uv ")
        else:
            assert hook["language"] in ("fail", "pygrep"), "not a language of pre-commit's own"
