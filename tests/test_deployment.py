"""The files that run a rendered service in production: compose file, image and workflow."""

import json
import os
import re
import shutil
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
import yaml

from extensions.context import COMMANDS
from tests.checks import none, problems_of_workflow, said
from tests.composed import APP, SECRET, made_up, services
from tests.conftest import Project
from tests.renders import ROOT

WATCHERS = {"prometheus", "grafana"}
CHECKED = {"test", "interval", "timeout", "retries", "start_period", "start_interval"}
SETTING = re.compile(r"(?:job_timeout|celery_time_limit): \w+ = Field\(default=(\d+)")


def test_the_compose_file_is_valid(project: Project) -> None:
    schema = ["check-jsonschema", "--quiet", "--builtin-schema", "vendor.compose-spec"]
    assert said([*schema, project.folder / "compose.yaml"]) == ""
    if compose := compose_command():
        check = [*compose, "config", "--quiet"]
        done = subprocess.run(
            check,
            cwd=project.folder,
            env=os.environ | made_up(project),
            text=True,
            capture_output=True,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_a_secret_has_no_default(project: Project) -> None:
    variables = dict(SECRET.findall(project.files["compose.yaml"]))
    can = project.render.selection.capabilities()
    expected = {"API_KEY": ":?", "ALLOWED_HOSTS": ":?", "POSTGRES_PASSWORD": ":?", "PORT": ""}
    expected |= {"PROMETHEUS_PORT": "", "GRAFANA_PORT": ""}
    expected |= {"VALKEY_PASSWORD": ":?"} if can["needs_redis"] else {}
    expected |= {"RABBITMQ_PASSWORD": ":?"} if can["needs_rabbitmq"] else {}
    expected |= {"FLOWER_PASSWORD": ":?", "FLOWER_PORT": ""} if can["has_celery"] else {}
    assert variables == expected
    named = project.files[".env.example"]
    none([name for name, required in expected.items() if required and f"# {name}=" not in named])


def test_each_service_gets_its_own_secrets_alone(project: Project) -> None:
    """It doesn't get the whole `.env`, which has the secrets of all services."""
    uses = project.render.selection.secrets()
    everybodys = {variable for variables in uses.values() for variable in variables}
    for name, service in services(project).items():
        assert "env_file" not in service
        if name in APP:
            assert everybodys & set(service["environment"]) == set(uses[name])
        assert "PASSWORD" not in str(service.get("command", "")), "anybody can list commands"


def test_each_setting_gets_into_the_containers(project: Project) -> None:
    code = project.files["app/config.py"]
    fields = re.findall(r"^    (\w+): .*=", code.partition("def ")[0], re.MULTILINE)
    settings = {field.upper() for field in fields}
    assert len(settings) > 15
    flower = {name for name in settings if name.startswith("FLOWER_")}
    given = set(services(project)["api"]["environment"])
    assert settings - flower | {"FORWARDED_ALLOW_IPS"} == given - opentelemetrys(project, "api")
    named = set(dict(SECRET.findall(project.files["compose.yaml"])))
    others = code.partition("OTHERS = {")[2].partition("}")[0]
    assert named - settings <= set(re.findall(r'"(\w+)"', others))


def test_what_makes_traces_knows_where_they_go(project: Project) -> None:
    """They get the documented variables from `.env`, because an exporter's headers are secret."""
    traced = {name for name, _ in project.render.selection.processes()}
    told = set(re.findall(r"OTEL_\w+", (ROOT / "docs" / "operating.md").read_text("utf-8")))
    assert len(told) > 5
    for name, service in services(project).items():
        given = opentelemetrys(project, name)
        assert given == (told if name in traced else set()), name
        assert {service["environment"][variable] for variable in given} <= {None}


def opentelemetrys(project: Project, service: str) -> set[str]:
    environment = services(project)[service].get("environment", {})
    return {variable for variable in environment if variable.startswith("OTEL_")}


def test_the_services_are_what_the_answer_needs(project: Project) -> None:
    can = project.render.selection.capabilities()
    expected = {name for name, _ in project.render.selection.processes()} | {"migrate", "postgres"}
    expected |= {"flower"} if can["has_celery"] else set()
    expected |= {"valkey"} if can["needs_redis"] else set()
    expected |= {"rabbitmq"} if can["needs_rabbitmq"] else set()
    assert set(services(project)) == expected | WATCHERS
    assert {n for n, s in services(project).items() if s.get("profiles")} == WATCHERS
    brokers = expected & {"valkey", "rabbitmq"}
    healthy = {"condition": "service_healthy"}
    for name in expected & APP - {"migrate"}:
        waits_for = services(project)[name]["depends_on"]
        migrated = {"migrate": {"condition": "service_completed_successfully"}}
        assert waits_for == migrated | dict.fromkeys(brokers, healthy)
    assert services(project)["migrate"]["depends_on"] == {"postgres": healthy}


def test_each_command_is_the_catalogues(project: Project) -> None:
    for name, command in project.render.selection.processes():
        if name != "api":
            assert services(project)[name]["command"] == command
    images = re.findall(r"^CMD (.+)$", project.files["Dockerfile"], re.MULTILINE)
    listening = ["--host", "0.0.0.0", "--port", "8000"]
    assert [json.loads(command) for command in images] == [COMMANDS["api"].split() + listening]


def test_nothing_but_the_api_is_published(project: Project) -> None:
    published = {name: s["ports"] for name, s in services(project).items() if "ports" in s}
    assert published.pop("api") == ["${PORT:-8000}:8000"]
    assert published.pop("prometheus") == ["127.0.0.1:${PROMETHEUS_PORT:-9090}:9090"]
    assert published.pop("grafana") == ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"]
    assert published in ({}, {"flower": ["127.0.0.1:${FLOWER_PORT:-5555}:5555"]})


def test_each_service_is_checked(project: Project) -> None:
    for name, service in services(project).items():
        check = service["healthcheck"]
        if name == "migrate":
            assert (check, service["restart"]) == ({"disable": True}, "no")
            continue
        assert service["restart"] == "unless-stopped"
        assert set(check) == CHECKED
        if isinstance(check["test"], list):
            assert not any(set(" '\"$") & set(item) for item in check["test"])
        assert ("find" in check["test"]) == (name in APP - {"api", "flower"})
        if "find" in check["test"]:
            assert f"`{' '.join(check['test'][1:])}`" in project.files["app/core/concurrency.py"]


@pytest.mark.renders("celery")
def test_a_check_asks_no_proxy(project: Project) -> None:
    """Docker puts the proxies of its configuration into each container."""
    own = {name: service["healthcheck"].get("test") for name, service in services(project).items()}
    asking = {name: test for name, test in own.items() if "http://127.0.0.1" in str(test)}
    assert {*asking} == {"api", "flower", *WATCHERS}
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for name in asking.keys() - WATCHERS:
            check = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{server.server_port}", asking[name])
            environment = os.environ | {"http_proxy": "http://127.0.0.1:1"}
            assert subprocess.run(["sh", "-c", check], env=environment).returncode == 0
        server.shutdown()
    assert all(asking[name][1:4] == ["wget", "-Y", "off"] for name in WATCHERS)


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def test_a_stop_leaves_time_for_the_longest_task(project: Project) -> None:
    minutes = re.findall(r"timeout: timedelta = timedelta\(minutes=(\d+)\)", all_code(project))
    config = project.files["app/config.py"]
    longest = max([60 * int(minutes[0]), *map(int, SETTING.findall(config))])
    (drain,) = re.findall(r"usual = (\d+) if self.environment", config)
    (default,) = re.findall(r"stop_grace: float = Field\(default=(\d+)", config)
    (requests,) = re.findall(r"--timeout-graceful-shutdown (\d+)", COMMANDS["api"])
    assert int(requests) < int(default) < longest  # a host's grace runs beside the requests'
    for name in set(services(project)) & APP:
        service = services(project)[name]
        grace = int(service["environment"]["STOP_GRACE"])
        stopped = 60 * int(service["stop_grace_period"].removesuffix("m"))
        assert longest <= grace < grace + int(drain) < stopped


def test_a_stop_reaches_a_process_that_has_no_handler_yet(project: Project) -> None:
    """The kernel gives the process 1 of a container no signal that it doesn't handle."""
    started = {name for name, service in services(project).items() if service.get("init")}
    assert started == {name for name, service in services(project).items() if "build" in service}


def test_a_container_can_do_little(project: Project) -> None:
    for name, service in services(project).items():
        assert service["security_opt"] == ["no-new-privileges:true"]
        if name in APP:
            assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
            assert service["environment"]["ENVIRONMENT"] == "production"
        else:
            assert re.search(r":v?\d+\.\d+(\.\d+)?$", service["image"]), "not an exact version"
    assert re.search(r"^USER \d+$", project.files["Dockerfile"], re.MULTILINE)


def test_each_container_has_limits(project: Project) -> None:
    """Without them one container can take what all others need."""
    told = (ROOT / "docs" / "operating.md").read_text("utf-8")
    assert "Each container may use 1 GiB of memory and 512 processes" in told
    for name, service in services(project).items():
        limits = service["deploy"]["resources"]["limits"]
        assert limits == {"memory": "1g", "pids": 512}, name


def test_the_server_keeps_what_it_is_told(project: Project) -> None:
    if valkey := services(project).get("valkey"):
        configs = yaml.safe_load(project.files["compose.yaml"])["configs"]
        told = dict(line.split(" ", 1) for line in configs["valkey"]["content"].splitlines())
        assert valkey["command"] == ["valkey-server", valkey["configs"][0]["target"]]
        assert (told["appendonly"], told["maxmemory-policy"]) == ("yes", "noeviction")
        assert told["requirepass"].startswith("${VALKEY_PASSWORD:?")


def test_the_image_and_the_workflow_are_linted(project: Project) -> None:
    assert said(["hadolint", "--no-color", project.folder / "Dockerfile"]) == ""
    assert problems_of_workflow(project.folder / ".github" / "workflows" / "ci.yml") == ""
    installs = "rabbitmq-server" in project.files[".github/workflows/ci.yml"]
    assert installs == project.render.selection.capabilities()["needs_rabbitmq"]


def all_code(project: Project) -> str:
    return "\n".join(text for name, text in project.files.items() if name.startswith("app/"))


def compose_command() -> list[str]:
    """Debian's `docker-compose`, which checks a file without Docker, or else Docker's own."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    return ["docker", "compose"] if shutil.which("docker") else []
