"""Reads what the jobs of two releases have written, and finds what is wrong."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

Line = dict[str, Any]
SECOND = timedelta(seconds=1)


def lines(path: Path) -> list[Line]:
    """The complete lines of the file so far."""
    text = path.read_text("utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


@dataclass
class Evidence:
    """Processes have names. A line names a process by its id, or an API by its port."""

    runs_file: Path
    accepted_file: Path
    pids: dict[str, int] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def runs(self) -> list[Line]:
        """A line for each try, in the order of their starts."""
        return lines(self.runs_file)

    def accepted(self) -> list[Line]:
        """A line for each job that a release has accepted."""
        return lines(self.accepted_file)

    def begun(self, *hosts: str, by: str = "") -> int:
        """How many of the jobs that the API `by` accepted these processes have begun."""
        pids = {self.pids[name] for name in hosts}
        items = {line["item"] for line in self.runs() if line["host"] in pids}
        return len(items & self.accepted_by(by) if by else items)

    def accepted_by(self, api: str) -> set[str]:
        port = str(self.ports[api])
        return {line["item"] for line in self.accepted() if line["by"] == port}

    def hosts_of(self, item: str) -> list[str]:
        """The processes that began a try of this job, in the order of the tries."""
        names = {pid: name for name, pid in self.pids.items()}
        return [names[line["host"]] for line in self.runs() if line["item"] == item]

    def longest_wait(self) -> float:
        """The longest time in seconds from a job's acceptance to its first try."""
        began = {line["item"]: line["at"] for line in reversed(self.runs())}
        waits = [began[it["item"]] - it["at"] for it in self.accepted() if it["item"] in began]
        return max(waits, default=0.0)

    def summary(self) -> str:
        """How many jobs each process has accepted and begun."""
        begun = {name: count for name in self.pids if (count := self.begun(name))}
        apis = {name: len(self.accepted_by(name)) for name in self.ports}
        total, longest = len(self.accepted()), self.longest_wait()
        return f"{total} accepted, of which {apis}; begun {begun}; longest wait {longest:.1f} s"


def problems(evidence: Evidence, result: dict[str, Any], killed: str) -> list[str]:
    """Jobs that are lost or doubled, or that ran again though the test didn't kill their host."""
    accepted = {line["item"]: line["job"] for line in evidence.accepted()}
    return [
        *_of_jobs(accepted, result["jobs"]),
        *_of_orders(accepted, Counter(result["orders"])),
        *_of_runs(evidence, accepted, result["jobs"], killed),
    ]


def _of_jobs(accepted: dict[str, str], rows: dict[str, Line]) -> Iterator[str]:
    for item, job in accepted.items():
        if job not in rows:
            yield f"{item}: accepted, but there is no such job"
        elif rows[job]["status"] != "succeeded":
            yield f"{item}: {rows[job]}"
    if unknown := set(rows) - set(accepted.values()):
        yield f"jobs that nobody asked for: {unknown}"


def _of_orders(accepted: dict[str, str], orders: Counter[str]) -> Iterator[str]:
    posted = [item for item in accepted if item.startswith("post")]
    written = [item for item in accepted if item.startswith(("post", "work", "hold"))]
    expected = Counter([*written, *(f"processed {item}" for item in posted)])
    for item in sorted({*expected, *orders}):
        if expected[item] != orders[item]:
            yield f"{item}: {orders[item]} orders instead of {expected[item]}"


def _of_runs(
    evidence: Evidence, accepted: dict[str, str], rows: dict[str, Line], killed: str
) -> Iterator[str]:
    runs = Counter(line["item"] for line in evidence.runs())
    for item, job in accepted.items():
        if runs[item] == 0:
            yield f"{item}: succeeded without a run"
        elif runs[item] > 1 and evidence.hosts_of(item)[0] != killed:
            yield f"{item}: ran on {evidence.hosts_of(item)}, {rows.get(job)}"


def take_ticks(result: dict[str, Any]) -> list[Line]:
    """Remove the jobs of the schedule `each_second` from the result; returns them."""
    jobs = result["jobs"]
    return [jobs.pop(job) for job, row in [*jobs.items()] if "each_second" in str(row["key"])]


def problems_of_ticks(rows: list[Line]) -> list[str]:
    """Each second from the first tick to the last must have one job, which succeeded."""
    ticks = sorted(datetime.fromisoformat(row["key"].split(":", 2)[2]) for row in rows)
    return [
        *(f"{tick}, then {after}" for tick, after in pairwise(ticks) if after - tick != SECOND),
        *(f"a tick: {row}" for row in rows if row["status"] != "succeeded"),
    ]
