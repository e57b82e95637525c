"""CI runs what the catalogue has, with no more rights than it needs."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.matrix import with_matrix
from tests.renders import RENDERS, ROOT
from tests.test_delivery import EACH_BACKEND
from tests.test_schedules import EACH_CLOCK
from tests.test_strangers import ASKED

FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
RENDERED = ROOT / "template" / ".github" / "workflows" / "ci.yml.jinja"
USES = re.compile(r"uses: (.+)")


def parsed(name: str) -> dict[str, Any]:
    workflow: dict[str, Any] = yaml.load((FOLDER / name).read_text("utf-8"), yaml.BaseLoader)
    return workflow


def test_the_matrix_is_the_catalogues() -> None:
    text = (FOLDER / "ci.yml").read_text("utf-8")
    assert with_matrix(text) == text, "run: uv run python scripts/matrix.py"
    rendered = parsed("ci.yml")["jobs"]["rendered"]
    assert rendered["strategy"]["matrix"] == {"name": list(RENDERS)}


def test_a_workflow_that_lost_its_matrix_is_not_written() -> None:
    with pytest.raises(ValueError, match="has 0 matrices"):
        with_matrix("jobs: {}\n")


def test_the_jobs_run_every_test() -> None:
    jobs = parsed("ci.yml")["jobs"]
    commands = {name: job["steps"][-1]["run"] for name, job in jobs.items()}
    assert commands == {
        "template": '.ci/run -m "not slow and not rendered"',
        "rendered": '.ci/run -k "$NAME"',
        "slow": '.ci/run -m "slow and not delivery" -n0',
        "delivery": '.ci/run -m delivery -k "$NAME" -n0',
    }
    names = parsed("ci.yml")["jobs"]["delivery"]["strategy"]["matrix"]["name"]
    assert set(names) == {*EACH_BACKEND.args, *EACH_CLOCK.args}


def test_the_night_resolves_afresh() -> None:
    jobs = parsed("nightly.yml")["jobs"]
    assert jobs["fresh"] == {"uses": "./.github/workflows/ci.yml", "with": {"fresh": "true"}}
    assert {"run": "rm uv.lock"} in jobs["strangers"]["steps"]
    for each in parsed("ci.yml")["jobs"].values():
        assert {"if": "inputs.fresh", "run": "rm uv.lock"} in each["steps"]


def test_strangers_ask_all_night() -> None:
    job = parsed("nightly.yml")["jobs"]["strangers"]
    assert job["steps"][-1] == {"run": '.ci/run -m night -k "$NAME" -n0'}
    assert set(job["strategy"]["matrix"]["name"]) == set(ASKED.args)


def test_an_action_is_pinned_once_for_the_template_and_for_services() -> None:
    ours, theirs = (set(USES.findall(p.read_text("utf-8"))) for p in (FOLDER / "ci.yml", RENDERED))
    assert ours == theirs
    for pin in ours:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", pin)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_valid_and_safe(path: Path) -> None:
    assert problems_of_workflow(path) == ""


def problems_of_workflow(path: Path) -> str:
    """What the schema, actionlint and zizmor say of it, all of them without a network."""
    schema = ["check-jsonschema", "--quiet", "--builtin-schema", "vendor.github-workflows"]
    return said([*schema, path]) + said(["actionlint", path]) + said(["zizmor", *OFFLINE, path])


OFFLINE = ["--offline", "--quiet", "--no-progress", "--color=never"]


def said(command: list[str | Path], cwd: Path = ROOT) -> str:
    """The output of a tool of this environment, where it found something."""
    program = Path(sys.executable).with_name(str(command[0]))
    done = subprocess.run([program, *command[1:]], cwd=cwd, text=True, capture_output=True)
    return (done.stdout + done.stderr or f"{program}: {done.returncode}") if done.returncode else ""
