"""The rules fire and the dashboard has data, in a real Prometheus if one is installed."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts.metrics_table import PAGE, metrics, rewritten
from tests.checks import missing, none
from tests.conftest import Project
from tests.renders import ROOT, uv_command
from tests.running import run

OBSERVABILITY = ROOT / "template" / "observability"
RULES = OBSERVABILITY / "alerts.yml"
DASHBOARD = OBSERVABILITY / "dashboard.json"
INSIDE = ROOT / "tests" / "inside"
OF_RULES = Path(__file__).with_name("alert_rules.yml")


def program(name: str) -> str:
    """The path of a program. If it isn't installed the test is skipped, or fails in CI."""
    if found := shutil.which(name):
        return found
    raise missing(f"no {name} here: install Debian's package prometheus")


def promtool(*arguments: str | Path) -> None:
    command = [program("promtool"), *arguments]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_say_when_they_fire() -> None:
    promtool("check", "rules", RULES)
    promtool("test", "rules", OF_RULES)
    tried = {case["alertname"] for each in cases() for case in each["alert_rule_test"]}
    assert tried == alerts()


def test_prometheus_scrapes_each_process(project: Project) -> None:
    """Prometheus finds processes by their services' names, at a port that isn't published."""
    config = yaml.safe_load(project.files["observability/prometheus.yml"])
    (jobs,) = config["scrape_configs"]
    (found,) = jobs["dns_sd_configs"]
    (relabelled,) = jobs["relabel_configs"]
    assert relabelled == {"source_labels": ["__meta_dns_name"], "target_label": "process"}
    assert jobs["job_name"].startswith("jobs")
    services = yaml.safe_load(project.files["compose.yaml"])["services"]
    names = {name for name, _ in project.render.selection.processes()}
    assert set(found["names"]) == names
    for name in names:
        environment = services[name]["environment"]
        assert int(environment["METRICS_PORT"]) == found["port"]
        assert environment["METRICS_HOST"] == "0.0.0.0"
    for name in ("prometheus", "grafana"):
        sources = [volume.split(":")[0] for volume in services[name]["volumes"]]
        mounted = [source for source in sources if source.startswith("./")]
        assert mounted
        assert [path for path in mounted if not (project.folder / path).exists()] == []
    promtool("check", "config", project.folder / "observability" / "prometheus.yml")


@pytest.mark.renders("arq-apscheduler")
def test_each_alert_fires_by_a_real_fault(project: Project, tmp_path: Path) -> None:
    """The dashboard's queries find data in the same Prometheus."""
    program("prometheus")
    for name in ("faults.py", "fault_tasks.py"):
        shutil.copy(INSIDE / name, tmp_path)
    # It runs as a test of the service, with the servers and settings of the service's own tests.
    service = ("-p", "tests.conftest", "-c", "pyproject.toml", "--rootdir", ".")
    its = (uv_command(), "run", "python", "-m", "pytest", *service, "--database", "postgresql")
    run(project, "alerts", *its, tmp_path / "faults.py")


def test_the_dashboard_shows_each_metric() -> None:
    """There is no Grafana here. The test above runs its queries in Prometheus."""
    text = DASHBOARD.read_text("utf-8")
    names = [name for name, *_ in metrics()]
    assert len(names) > 10
    assert [name for name in names if name not in text] == []
    panels = json.loads(text)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["datasource"]["uid"] for panel in panels} == {source()["uid"]}


def test_the_dashboard_keeps_services_apart() -> None:
    """Two services may each have a queue, or a task, of one name."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    targets = [target for panel in panels for target in panel["targets"]]
    merged = [
        each["expr"]
        for each in targets
        for labels in re.findall(r"\b(?:sum|max)\b(?: by \(([^)]*)\))?", each["expr"])
        if "job" not in labels.split(", ")
    ]
    none(merged)
    none([each["legendFormat"] for each in targets if "{{job}}" not in each["legendFormat"]])


def source() -> dict[str, str]:
    provisioned = yaml.safe_load((OBSERVABILITY / "grafana.yml").read_text("utf-8"))
    (found,) = provisioned["datasources"]
    return dict(found)


def alerts() -> set[str]:
    (group,) = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return {rule["alert"] for rule in group["rules"]}


def cases() -> list[dict[str, list[dict[str, str]]]]:
    found: list[dict[str, list[dict[str, str]]]]
    found = yaml.safe_load(OF_RULES.read_text("utf-8"))["tests"]
    return found


def test_each_alert_is_explained() -> None:
    page = PAGE.read_text("utf-8")
    assert [name for name in alerts() if f"| `{name}` |" not in page] == []


def test_the_table_of_metrics_is_made_from_the_code() -> None:
    page = PAGE.read_text("utf-8")
    assert page == rewritten(page), "run python -m scripts.metrics_table"
    assert [name for name, *_ in metrics() if f"| `{name}` |" not in page] == []
