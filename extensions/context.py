"""The catalogue of back ends, and what a choice of them means for the rendered service.

It imports no other module of the template: an update loads the old and the new version into one
process, where such a module could come from the other version.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from copier_template_extensions import ContextHook


@dataclass(frozen=True)
class Backend:
    """One answer of the question `backends`."""

    name: str
    title: str
    advice: str


BACKENDS: Final = (
    Backend("background", "BackgroundTasks", "simple notifications and logging, in the process"),
    Backend("arq", "ARQ", "async first: a light queue on Redis with its own worker"),
    Backend("celery", "Celery", "complex workflows, or Celery experience; Redis or RabbitMQ"),
    Backend("apscheduler", "APScheduler", "schedules; goes with any of the others"),
)
NAMES: Final = tuple(backend.name for backend in BACKENDS)
BROKERS: Final = ("redis", "rabbitmq")
APSCHEDULERS: Final = ("3", "4")
PYTHON_VERSIONS: Final = ("3.11", "3.12", "3.13")


def _data(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(name).read_text("utf-8"))


REQUIREMENTS: Final[Mapping[str, dict[str, list[str]]]] = _data("dependencies.toml")
PREFERENCES: Final[Mapping[str, list[str]]] = _data("processes.toml")["preferences"]
COMMANDS: Final[Mapping[str, str]] = _data("processes.toml")["commands"]


@dataclass(frozen=True)
class Selection:
    """The chosen back ends, and what the service needs because of them."""

    backends: tuple[str, ...]
    broker: str = "redis"
    apscheduler: str = "3"
    engine_tests: bool = False

    def has(self, *names: str) -> bool:
        """Whether any of these is chosen."""
        return any(name in self.backends for name in names)

    def variants(self) -> list[str]:
        """The chosen back ends. Celery's name has its broker, APScheduler's its version."""
        about = {"celery": f"_{self.broker}", "apscheduler": f"_{self.apscheduler}"}
        return [name + about.get(name, "") for name in self.backends]

    def first(self, *names: str) -> str:
        """The first of these that is chosen."""
        return next(name for name in names if name in self.backends)

    def capabilities(self) -> dict[str, bool]:
        """The names for templates' conditions. A capability says why something is rendered."""
        has_worker = self.has("arq", "celery")
        has_beat = self.has("celery") and not self.has("apscheduler")
        needs_rabbitmq = self.has("celery") and self.broker == "rabbitmq"
        celery_on_redis = self.has("celery") and not needs_rabbitmq
        return {
            **{f"has_{name}": self.has(name) for name in NAMES},
            **{f"has_apscheduler_{v}": f"apscheduler_{v}" in self.variants() for v in APSCHEDULERS},
            "needs_redis": self.has("arq") or celery_on_redis,
            "needs_rabbitmq": needs_rabbitmq,
            "celery_on_redis": celery_on_redis,
            "engine_tests": self.engine_tests,
            "has_several": len(self.backends) > 1,
            "has_worker": has_worker,
            "has_two_workers": self.has("arq") and self.has("celery"),
            "has_beat": has_beat,
            "has_scheduler": has_beat or (self.has("apscheduler") and has_worker),
            "has_scheduler_process": self.has("apscheduler") and has_worker,
            "clock_in_api": not has_worker,
            "clock_runs_jobs": not has_beat,
        }

    def clock(self) -> str:
        """What wakes the dispatcher of schedules."""
        name = self.first("apscheduler", "celery", "arq", "background")
        return "beat" if name == "celery" else name

    def queues(self) -> dict[str, str]:
        """Each queue with the back end that carries it by default."""
        return {queue: self.first(*names) for queue, names in PREFERENCES.items()}

    def api_backends(self) -> tuple[str, ...]:
        """The back ends whose lifespan the API's process enters. The clock's ends last."""
        entered = [name for name, host in self.hosts().items() if host != "scheduler"]
        return tuple(sorted(entered, key=lambda name: name != self.clock()))

    def dependencies(self, group: str) -> list[str]:
        """The requirements of a group. Those of every service come last; `uv add` appends to them.

        The groups are `service`, `dev`, `tracing` and `embedded`.
        """
        needed = {*self.variants(), *(n for n, can in self.capabilities().items() if can)}
        chosen = sorted(r for key in needed for r in REQUIREMENTS[group].get(key, []))
        return chosen + REQUIREMENTS[group]["always"]

    def processes(self) -> list[tuple[str, list[str]]]:
        """Each process with its command. Whoever starts the API chooses its port."""
        can, hosts = self.capabilities(), self.hosts()
        found = [("api", "api"), *((hosts[n], n) for n in ("arq", "celery") if self.has(n))]
        found += [("scheduler", self.clock())] if can["has_scheduler"] else []
        return [(name, COMMANDS[part].split()) for name, part in found]

    def secrets(self) -> dict[str, list[str]]:
        """The keys and addresses that each process uses; no other process gets them."""
        celerys = f"{self.broker.upper()}_URL"
        urls = {"arq": ["REDIS_URL"], "celery": [celerys], "beat": [celerys]}
        hosts = self.hosts() | ({"beat": "scheduler"} if self.clock() == "beat" else {})
        used = sorted({url for name in hosts for url in urls.get(name, [])})
        found = {host: ["DATABASE_URL", *urls.get(name, [])] for name, host in hosts.items()}
        found |= {"flower": ["FLOWER_PASSWORD", celerys]} if self.has("celery") else {}
        keys = {"api": ["API_KEY", "ALLOWED_HOSTS", "DATABASE_URL", *used]}
        return keys | {k: v for k, v in found.items() if k != "api"} | {"migrate": ["DATABASE_URL"]}

    def hosts(self) -> dict[str, str]:
        """The process that runs each back end's jobs."""
        scheduler = "scheduler" if self.capabilities()["has_scheduler_process"] else "api"
        both = self.has("arq") and self.has("celery")
        worker = {name: f"worker-{name}" if both else "worker" for name in ("arq", "celery")}
        hosts = {"background": "api", "apscheduler": scheduler, **worker}
        return {name: hosts[name] for name in self.backends}


@cache  # Copier asks for it at every string that it renders: thousands of times in a render
def context_of(selection: Selection) -> Mapping[str, Any]:
    """All names that templates get for a selection."""
    names = ("clock", "queues", "api_backends", "processes", "hosts", "secrets")
    derived = {name: getattr(selection, name)() for name in names}
    needed = {f"{group}_dependencies": selection.dependencies(group) for group in REQUIREMENTS}
    return selection.capabilities() | derived | needed


class ServiceContext(ContextHook):
    """Adds to Copier's context the names that follow from the answers."""

    def hook(self, context: dict[str, Any]) -> None:
        """Copier calls it for every string that it renders, in every phase."""
        backends = context.get("backends")
        answer = backends if isinstance(backends, list) else []
        if chosen := tuple(name for name in NAMES if name in answer):
            broker, version = context.get("celery_broker"), context.get("apscheduler_version")
            engine_tests = bool(context.get("engine_tests"))
            selection = Selection(chosen, broker or "redis", version or "3", engine_tests)
            context.update(context_of(selection))
