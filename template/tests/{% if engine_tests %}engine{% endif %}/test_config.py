"""Wrong settings end a process at once. It prints one clear line for each, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import HttpUrl, SecretStr, ValidationError

from app.config import Settings, get_settings
from app.core.values import DatabaseAddress
from tests.engine.booting import STRONG, URLS, boot, with_password


@pytest.mark.parametrize(
    ("env", "line"),
    [
        (STRONG | {"API_KEY": ""}, "API_KEY must have at least 24 characters in production"),
        (STRONG | {"API_KEY": "short"}, "API_KEY must have at least 24 characters in production"),
        (
            {name: value for name, value in STRONG.items() if name != "ALLOWED_HOSTS"},
            'ALLOWED_HOSTS must be set in production, to ["*"] where a proxy checks them',
        ),
        (
            STRONG | {"DATABASE_URL": "postgresql://app:change-me@db/app"},
            "DATABASE_URL has a default password: set one of your own in production",
        ),
    ],
)
def test_production_refuses_what_is_unsafe(env: dict[str, str], line: str) -> None:
    ended = boot(ENVIRONMENT="production", **env)
    assert ended.returncode == 1
    assert line in ended.stderr.splitlines()
    assert "Traceback" not in ended.stderr


def end_of(monkeypatch: pytest.MonkeyPatch, **env: str) -> str | None:
    """The error with which a process that has these settings ends."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    try:
        get_settings.__wrapped__()
    except SystemExit as ended:
        return str(ended.code)
    return None


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("", "no password"),
        (":", "no password"),
        (":App", "a default password"),
        (":p%61ssword", "a default password"),
        (":eleven-char", "a password under 12 characters"),
    ],
)
def test_production_refuses_a_weak_password(
    monkeypatch: pytest.MonkeyPatch, name: str, password: str, problem: str
) -> None:
    weak = STRONG | {"ENVIRONMENT": "production", name: with_password(URLS[name], password)}
    line = f"{name} has {problem}: set one of your own in production"
    assert end_of(monkeypatch, **weak) == line
    assert end_of(monkeypatch, **weak, TRUSTED_URLS=json.dumps([name])) is None


def test_a_closed_network_is_that_of_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"TRUSTED_URLS: CACHE_URL is none of {', '.join(sorted(URLS))}"
    assert end_of(monkeypatch, TRUSTED_URLS='["CACHE_URL"]') == line


@pytest.mark.parametrize("environment", ["development", "production"])
def test_only_the_address_of_a_server_needs_a_password(
    monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    class More(Settings):
        static_url: str = "/"
        webhook_url: str | None = None
        website_url: HttpUrl | None = None

    own = {"STATIC_URL": "/static", "WEBHOOK_URL": "https://a.example.com/hook"}
    own["WEBSITE_URL"] = "https://b.example.com/"
    for name, value in (STRONG | own | {"ENVIRONMENT": environment}).items():
        monkeypatch.setenv(name, value)
    made = More()
    assert {name: str(getattr(made, name.lower())) for name in own} == own


def test_production_refuses_a_weak_password_of_an_added_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class More(Settings):
        archive_url: DatabaseAddress = "sqlite:///archive.db"

    for name, value in (STRONG | {"ARCHIVE_URL": "postgresql://app@db/app"}).items():
        monkeypatch.setenv(name, value)
    More(environment="development")
    with pytest.raises(ValidationError, match="ARCHIVE_URL has no password"):
        More(environment="production")


def test_production_wants_what_a_process_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that no process requires may be missing or short."""

    class More(Settings):
        webhook_secret: SecretStr | None = None
        webhook_url: str = "http://127.0.0.1"

    for name, value in STRONG.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WEBHOOK_SECRET", "short")
    More(environment="development").require("webhook_secret", "webhook_url")
    settings = More(environment="production")
    settings.require("api_key", "allowed_hosts", "database_url")
    with pytest.raises(SystemExit) as ended:
        settings.require("webhook_secret", "webhook_url")
    assert str(ended.value).splitlines() == [
        "WEBHOOK_SECRET must have at least 24 characters in production",
        "WEBHOOK_URL must be set in production",
    ]


def test_production_starts_with_strong_secrets() -> None:
    ended = boot(ENVIRONMENT="production", **STRONG)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_queue_that_nothing_carries_is_refused() -> None:
    ended = boot(QUEUES='{"default": "pigeon"}')
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("QUEUES: default goes to 'pigeon', which is none of ")


def test_a_task_whose_queue_nothing_carries_is_refused() -> None:
    carried = {name: backend for name, backend in Settings().queues.items() if name != "orders"}
    ended = boot(QUEUES=json.dumps(carried))
    line = "QUEUES: nothing carries orders, the queue of orders.process_order\n"
    assert (ended.returncode, ended.stderr) == (1, line)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE", "soon"),
        ("LOG_LEVEL", "DEBGU"),
        ("MAIL_RATE", "ten a minute"),
        ("QUEUES", "{bad"),
        ("API_KEY", "hunter2 ключ"),
        ("API_KEY", "hunter2\tkey"),
        ("API_KEY", "hunter2 "),
        ("ALLOWED_HOSTS", "example.com"),
        ("ALLOWED_HOSTS", '["*example.com"]'),
        ("ALLOWED_HOSTS", '["https://api.example.com"]'),
        ("ALLOWED_HOSTS", '["api.example.com", "api.example.com:8443"]'),
        ("ALLOWED_HOSTS", '["api.example.com/"]'),
        ("ALLOWED_HOSTS", '["*.example.com:8443"]'),
        ("ALLOWED_HOSTS", '[""]'),
        ("DATABASE_URL", "postgres:/app:hunter2@db/app"),
        ("DATABASE_URL", "mysql://app:hunter2@db/app"),
        ("DATABASE_URL", "postgresql://app:hunter2@db:port/app"),
        ("DATABASE_URL", "sqlite://"),
        *[
            (name, value)
            for name in sorted({*URLS} - {"DATABASE_URL"})
            for value in ("http://app:hunter2@h", "{}:/h", "{}//h", "{}://:hunter2/@h:p")
        ],
    ],
)
def test_a_wrong_value_names_its_variable_and_no_password(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    line = end_of(monkeypatch, **{name: value.replace("{}", URLS.get(name, "{}").split(":")[0])})
    assert line is not None
    assert line.startswith(f"{name}: ")
    assert ("\n" in line, "hunter2" in line) == (False, False)


def test_a_host_is_a_name_or_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = ["*", "*.example.com", "api.example.com", "API_1", "10.0.0.7", "[::1]"]
    assert end_of(monkeypatch, ALLOWED_HOSTS=json.dumps(hosts)) is None


def test_a_wrong_value_is_one_line_and_no_traceback() -> None:
    ended = boot(QUEUES="{bad", LEASE="soon")
    assert (ended.returncode, ended.stderr) == (1, "QUEUES: must be JSON, as in .env.example\n")


def test_what_nothing_reads_in_the_env_file_is_named(tmp_path: Path) -> None:
    """Variables of other programs are not named. None is refused: there may be more of them."""
    known = ["LOG_LEVEL=INFO", "PORT=1", "COMPOSE_PROJECT_NAME=x", "POSTGRES_PASSWORD=x"]
    wrong = ["API_KEYY=top secret", "SOMETHING_ELSE=1"]
    (tmp_path / ".env").write_text("\n".join([*known, *wrong]))
    ended = boot(ENV_FILE=str(tmp_path / ".env"))
    assert ended.returncode == 0
    first, second = ended.stderr.splitlines()
    assert re.search(r"settings.unknown .*name=API_KEYY nearest=API_KEY\b", first)
    assert re.search(r"settings.unknown .*name=SOMETHING_ELSE nearest=None\b", second)
    assert "top secret" not in ended.stderr
