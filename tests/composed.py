"""What the tests of a rendered compose file share."""

import re
import secrets
from typing import Any

import yaml

from tests.conftest import Project
from tests.ports import free_port

APP = {"api", "worker", "worker-arq", "worker-celery", "scheduler", "flower", "migrate"}
# A database alone can't be replaced without answers 503: `postgres` is in neither.
BESIDE = {"prometheus", "rabbitmq", "valkey"}
SECRET = re.compile(r"\$\{(\w+)(:\?)?")


def services(project: Project) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(project.files["compose.yaml"])["services"]
    return found


def made_up(project: Project) -> dict[str, str]:
    """Secrets and free ports for the variables that the compose file requires."""
    names = set(dict(SECRET.findall(project.files["compose.yaml"])))
    made = {name: secrets.token_urlsafe(24) for name in names}
    made |= {name: str(free_port()) for name in names if name.endswith("PORT")}
    made |= {"ALLOWED_HOSTS": '["api.example.com"]'}
    return made | {"COMPOSE_PROJECT_NAME": f"test-{project.name}"}
