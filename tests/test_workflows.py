"""CI tests every render of the catalogue, and has only the rights that it needs."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.workflows import USES, pins_of, with_matrix, with_pins
from tests.checks import OFFLINE, problems_of_workflow, said
from tests.marks import ASKED, EACH_BACKEND, EACH_CLOCK
from tests.renders import RENDERS, ROOT

FOLDER = ROOT / ".github" / "workflows"
RENDERED = sorted((ROOT / "template" / ".github" / "workflows").glob("*.yml*"))
PLAIN = [*FOLDER.glob("*.yml"), *(path for path in RENDERED if path.suffix == ".yml")]
DEPENDABOT = Path(".github", "dependabot.yml")


def parsed(name: str) -> dict[str, Any]:
    workflow: dict[str, Any] = yaml.load((FOLDER / name).read_text("utf-8"), yaml.BaseLoader)
    return workflow


def test_the_matrix_is_the_catalogues() -> None:
    text = (FOLDER / "ci.yml").read_text("utf-8")
    assert with_matrix(text) == text, "run: uv run python -m scripts.workflows"
    rendered = parsed("ci.yml")["jobs"]["rendered"]
    assert rendered["strategy"]["matrix"] == {"name": list(RENDERS)}


def test_a_workflow_that_lost_its_matrix_is_not_written() -> None:
    with pytest.raises(ValueError, match="has 0 matrices"):
        with_matrix("jobs: {}\n")


def test_services_are_checked_for_known_weaknesses() -> None:
    """Each change by zizmor, and every week the packages that are locked."""
    ci, weekly = (next(path for path in RENDERED if name in path.name) for name in ("ci", "weekly"))
    assert re.search(r"^ +- run: uv run .*zizmor ", ci.read_text("utf-8"), re.MULTILINE)
    assert re.search(r"^ +- cron: .+\* \* \d", weekly.read_text("utf-8"), re.MULTILINE)
    assert re.search(r"^ +(- )?run: uv audit --locked", weekly.read_text("utf-8"), re.MULTILINE)


def test_the_jobs_run_every_test() -> None:
    jobs = parsed("ci.yml")["jobs"]
    commands = {name: job["steps"][-1]["run"] for name, job in jobs.items()}
    assert commands == {
        "template": '.ci/run -m "not slow and not rendered and not night"',
        "rendered": '.ci/run -k "$NAME" -m "not slow and not delivery and not night or parts"',
        "slow": '.ci/run -m "slow and not delivery and not parts" -n0',
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


def test_the_night_runs_what_is_for_no_single_service() -> None:
    job = parsed("nightly.yml")["jobs"]["others"]
    assert job["steps"][-1] == {"run": '.ci/run -m "night and not rendered" -n0'}


def test_an_action_is_pinned_once_for_the_template_and_for_services() -> None:
    pins = pins_of(FOLDER / "ci.yml")
    for path in RENDERED:
        text = path.read_text("utf-8")
        assert with_pins(text, pins) == text, "run: uv run python -m scripts.workflows"
        assert set(USES.findall(text)) <= set(pins.values())
    for pin in pins.values():
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", pin)


def test_a_newer_pin_gets_into_services() -> None:
    newer = {"actions/checkout": "actions/checkout@" + "a" * 40 + " # v8.0.0"}
    for path in RENDERED:
        text = with_pins(path.read_text("utf-8"), newer)
        assert newer["actions/checkout"] in USES.findall(text)


def test_services_are_kept_up_as_the_template_is() -> None:
    ours, theirs = ((ROOT / at / DEPENDABOT).read_text("utf-8") for at in ("", "template"))
    assert ours == theirs
    assert said(["check-jsonschema", "--builtin-schema", "vendor.dependabot", DEPENDABOT]) == ""
    assert said(["zizmor", *OFFLINE, DEPENDABOT]) == ""
    updates = {update["package-ecosystem"]: update for update in yaml.safe_load(ours)["updates"]}
    assert set(updates) == {"uv", "github-actions"}
    for update in updates.values():
        assert [group["patterns"] for group in update["groups"].values()] == [["*"]]
        assert update["cooldown"]["default-days"] >= 7


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_it_is_valid_and_safe(path: Path) -> None:
    assert problems_of_workflow(path) == ""
