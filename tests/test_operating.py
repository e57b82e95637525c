"""`docs/operating.md` names each event that a service logs, and no other."""

import re
import signal
import sqlite3
import subprocess
import sys
from configparser import ConfigParser, SectionProxy
from contextlib import closing
from pathlib import Path

from tests.checks import none
from tests.composed import APP as OWN
from tests.renders import ROOT

APP = ROOT / "template" / "app"
PAGE = (ROOT / "docs" / "operating.md").read_text("utf-8")
USERS_OWN = {"tasks", "services"}
EVENT = r"[a-z]+\.[a-z_]+"
COMPOSE_UP = re.compile(r"docker compose (?:--profile \w+ )?up\b[^`#\n]*")
FIRST_START = {"docker compose up --build --detach --wait", "docker compose up --build --wait"}


def test_the_table_of_events_is_that_of_the_code() -> None:
    told = {event for text in sources() for event in events_of(text)}
    named = set(re.findall(f"`({EVENT})`", table_of("event")))
    none([f"not in the table: {event}" for event in sorted(told - named)])
    none([f"told nowhere: {event}" for event in sorted(named - told)])
    assert {"job.succeeded", "bell.failed", "worker.started"} < told


def test_an_event_is_a_name_and_no_sentence() -> None:
    none(
        [event for text in sources() for event in events_of(text) if not re.fullmatch(EVENT, event)]
    )


def test_a_unit_reaches_the_python_that_uv_brings() -> None:
    """By itself uv puts it into the home of who calls it, which units can't see."""
    section = PAGE.split("### With systemd\n")[1].split("\n## ")[0]
    (where,) = re.findall(r"^UV_PYTHON_INSTALL_DIR=(\S+) uv sync ", section, re.MULTILINE)
    hidden = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
    assert "ProtectHome=true" in section
    assert where.startswith("/")
    assert not where.startswith(hidden)


def test_a_workers_unit_outlives_a_process_that_needs_too_much_memory() -> None:
    """Celery's worker replaces the one. By its default systemd would stop the whole unit."""
    units = {name: unit_of(name) for name in ("api.service", "worker@.service")}
    policies = {name: unit.get("OOMPolicy", "stop") for name, unit in units.items()}
    assert policies == {"api.service": "stop", "worker@.service": "continue"}


def test_a_restore_leaves_nothing_of_the_file_that_it_replaces(tmp_path: Path) -> None:
    """A process that was killed leaves a log, which SQLite would apply to the restored file."""
    backup, restore = re.findall(r'^(.*(?:"app\.db"| app\.db\b).*)$', PAGE, re.MULTILINE)
    write_and_die(tmp_path, "CREATE TABLE kept AS SELECT randomblob(99999) AS data")
    subprocess.run(["sh", "-ec", backup], cwd=tmp_path, check=True)
    write_and_die(tmp_path, "DROP TABLE kept; CREATE TABLE later AS SELECT 1")
    subprocess.run(["sh", "-ec", restore], cwd=tmp_path, check=True)
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        assert connection.execute("SELECT length(data) FROM kept").fetchall() == [(99999,)]
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def write_and_die(folder: Path, sql: str) -> None:
    script = f"""
import os, signal, sqlite3
connection = sqlite3.connect("app.db")
connection.executescript("PRAGMA journal_mode = wal; BEGIN; {sql}; COMMIT")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=folder).returncode == -signal.SIGKILL
    assert (folder / "app.db-wal").stat().st_size > 0


def unit_of(name: str) -> SectionProxy:
    """The part `Service` of a unit on the page."""
    (text,) = re.findall(rf"^# /etc/systemd/system/my-service-{name}(.+?)^```", PAGE, re.M | re.S)
    unit = ConfigParser(interpolation=None)
    unit.read_string(text.partition("\n")[2])
    return unit["Service"]


def test_only_the_first_start_names_no_service() -> None:
    """Without names, `up` replaces all that has changed, and leaves one replica of the API."""
    told = [up.strip() for text in told_to_operators() for up in COMPOSE_UP.findall(text)]
    assert {*told} > FIRST_START
    services = OWN | {"postgres", "prometheus", "grafana"}
    later = {up: services & {*up.split()} for up in told if up not in FIRST_START}
    none([f"names no service: {up}" for up, named in later.items() if not named])
    none([f"no scale: {up}" for up in later if "api" in later[up] and "--scale api=" not in up])


def told_to_operators() -> list[str]:
    """The texts that name commands."""
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "updates").glob("*.py")]
    files += [ROOT / "template" / f"{name}.jinja" for name in ("compose.yaml", "README.md")]
    return [path.read_text("utf-8") for path in files]


def sources() -> list[str]:
    """The files of the template. Users may log other events in theirs."""
    paths = [path for path in APP.rglob("*.py*") if path.is_file() and path.suffix != ".pyc"]
    own = [path for path in paths if not is_users(path.relative_to(APP).as_posix())]
    assert len(own) > 50
    return [path.read_text("utf-8") for path in own]


def is_users(name: str) -> bool:
    return name.partition("/")[0] in USERS_OWN and "worker.py" not in name


def events_of(text: str) -> set[str]:
    """The events in calls of `log`, `tell` and `tell_failed`, in constants, in endings of a try."""
    calls = r"\b(?:log\.\w+|get_logger\(__name__\)\.\w+|tell|tell_failed)"
    events = set(re.findall(rf'{calls}\(\s*"([^"]+)"', text))
    events |= set(re.findall(r'\bpartial\(log\.\w+, "([^"]+)"', text))  # told after a commit
    events |= set(re.findall(rf'^[A-Z]+ = "({EVENT})"$', text, re.MULTILINE))
    if "class Ending(" in text:
        events |= {f"job.{ending}" for ending in re.findall(r'^    [A-Z_]+ = "(\w+)"', text, re.M)}
    return events


def table_of(first: str) -> str:
    """The table whose first column has this title."""
    return PAGE.split(f"| {first} |")[1].split("\n\n")[0]
