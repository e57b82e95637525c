"""The tests of deploys find the faults that they look for."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.evidence import Evidence, lines, problems, problems_of_ticks, take_ticks

HOSTS = {"old": 1, "new": 2}
RUNS = [("post 1", 1), ("work 2", 2), ("note 3", 2), ("hold 0", 1), ("hold 0", 2)]
ORDERS = {"post 1": 1, "processed post 1": 1, "work 2": 1, "hold 0": 1}
SUCCEEDED = {"status": "succeeded", "attempts": 1, "crashes": 0}


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    """Four jobs; the old process was killed while it ran `hold 0`."""
    found = Evidence(tmp_path / "runs", tmp_path / "accepted", HOSTS, {"old": 8000})
    items = dict.fromkeys(item for item, _ in RUNS)
    accepted = ({"item": item, "job": f"id of {item}", "by": "8000", "at": 1} for item in items)
    write(found.accepted_file, accepted)
    write_runs(found, RUNS)
    return found


def write(path: Path, rows: Iterable[object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_runs(evidence: Evidence, runs: list[tuple[str, int]]) -> None:
    rows = ({"item": item, "host": host, "at": 3} for item, host in runs)
    write(evidence.runs_file, rows)


def result(orders: dict[str, int] = ORDERS) -> dict[str, Any]:
    jobs = {f"id of {item}": SUCCEEDED for item, _ in RUNS}
    return {"jobs": jobs, "orders": orders}


def test_a_good_deploy_has_no_problem(evidence: Evidence) -> None:
    assert problems(evidence, result(), "old") == []
    assert evidence.begun("old", "new") == evidence.begun("old", "new", by="old") == 4
    assert "longest wait 2.0 s" in evidence.summary()


def test_a_lost_job_is_found(evidence: Evidence) -> None:
    lost = result()
    del lost["jobs"]["id of note 3"]
    assert problems(evidence, lost, "old") == ["note 3: accepted, but there is no such job"]


def test_a_dead_job_is_found(evidence: Evidence) -> None:
    dead = result()
    dead["jobs"]["id of work 2"] = SUCCEEDED | {"status": "dead"}
    (problem,) = problems(evidence, dead, "old")
    assert problem.startswith("work 2: {'status': 'dead'")


def test_a_job_that_nobody_asked_for_is_found(evidence: Evidence) -> None:
    more = result()
    more["jobs"]["another"] = SUCCEEDED
    assert problems(evidence, more, "old") == ["jobs that nobody asked for: {'another'}"]


def test_an_effect_that_is_lost_or_doubled_is_found(evidence: Evidence) -> None:
    orders = ORDERS | {"work 2": 2, "processed post 1": 0}
    assert problems(evidence, result(orders), "old") == [
        "processed post 1: 0 orders instead of 1",
        "work 2: 2 orders instead of 1",
    ]


def test_a_job_that_ran_twice_is_found_unless_its_host_was_killed(evidence: Evidence) -> None:
    write_runs(evidence, [*RUNS, ("note 3", 1)])
    (problem,) = problems(evidence, result(), "old")
    assert problem.startswith("note 3: ran on ['new', 'old']")
    write_runs(evidence, RUNS)
    (problem,) = problems(evidence, result(), "new")
    assert problem.startswith("hold 0: ran on ['old', 'new']")


def test_a_job_that_succeeded_without_a_run_is_found(evidence: Evidence) -> None:
    write_runs(evidence, [run for run in RUNS if run[0] != "note 3"])
    assert problems(evidence, result(), "old") == ["note 3: succeeded without a run"]


def test_a_tick_that_is_lost_doubled_or_dead_is_found() -> None:
    keys = [f"schedule:each_second:2026-11-27T04:00:0{second}+00:00" for second in (2, 0, 1)]
    ticks = {key: SUCCEEDED | {"key": key} for key in keys}
    found = {"jobs": ticks | {"id of work 2": SUCCEEDED | {"key": None}}}
    rows = take_ticks(found)
    assert [*found["jobs"]] == ["id of work 2"]
    assert problems_of_ticks(rows) == []
    (lost,) = problems_of_ticks(rows[:2])
    assert lost.endswith("04:00:00+00:00, then 2026-11-27 04:00:02+00:00")
    (doubled,) = problems_of_ticks([*rows, rows[0]])
    assert doubled.endswith("04:00:02+00:00, then 2026-11-27 04:00:02+00:00")
    (dead,) = problems_of_ticks([*rows[1:], rows[0] | {"status": "dead"}])
    assert dead.startswith("a tick: {'status': 'dead'")


def test_half_a_line_is_not_read_yet(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    assert lines(path) == []
    path.write_text('{"item": "work 2"}\n{"item')
    assert lines(path) == [{"item": "work 2"}]
