"""The files that a user has moved or removed: an update can't change them, and names the change."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.services import Service, release

TASKS, MOVED = "app/tasks/orders.py", "app/tasks/purchases.py"
SAID = "You have moved or removed these, and the template has changed them. To see how:\n"


def test_what_the_template_changed_in_a_moved_file_is_shown(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The service is in a folder of a larger repository, and its newest commit moves nothing."""
    copy = Path(shutil.copytree(template, tmp_path / "template"))
    service = Service(copy, tmp_path / "all" / "one").render({"backends": ["background"]})
    (service.folder.parent / "README.md").write_text("All services.\n")
    subprocess.run(["git", "init", "--quiet", str(service.folder.parent)], check=True)
    service.committed().git("mv", TASKS, MOVED)
    service.replace(MOVED, "The work on an order", "The work on a purchase")
    service.git("rm", "--quiet", "Procfile", ".dockerignore", "Dockerfile")
    service.committed().committed()
    newer = {name: f"{copy_text(copy, name)}# newer\n" for name in (TASKS, ".dockerignore")}
    newer |= {"Procfile.jinja": "api: newer\n", "README.md.jinja": "Newer.\n"}
    release(copy, {f"template/{name}": text for name, text in newer.items()}, "v1000.0.0")
    capfd.readouterr()
    service.update(own_files=[".dockerignore"])
    shown = commands(capfd.readouterr().err)
    assert list(shown) == ["Procfile", TASKS]
    subprocess.run(f"{shown[TASKS]} | patch {MOVED}", cwd=service.folder, shell=True, check=True)
    assert service.read(MOVED).startswith('"""The work on a purchase')
    assert service.read(MOVED).endswith("# newer\n")
    service.committed().update(description="Another one")
    assert SAID not in capfd.readouterr().err


def copy_text(template: Path, name: str) -> str:
    return (template / "template" / name).read_text("utf-8")


def commands(said: str) -> dict[str, str]:
    """The printed command that shows what the template changed, by the file's name."""
    _, _, rest = said.partition(SAID)
    lines = rest.partition("\n\n")[0].splitlines()
    return dict(line.strip().split(": ") for line in lines)


@pytest.mark.slow
def test_a_file_that_a_switch_removed_is_not_one(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    service = Service(template, tmp_path / "it").render({"backends": ["arq"]}, "v0.2.0")
    service.committed().update(backends=["background"])
    service.committed().update(backends=["arq", "apscheduler"])
    service.committed().update(backends=["background"])
    assert SAID not in capfd.readouterr().err
