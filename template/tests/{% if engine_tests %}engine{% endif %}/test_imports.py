"""Importing the app opens no connection, and loads no module that the process doesn't need."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from devtools.commands import COMMANDS
from tests.service import ROOT

REFUSE_CONNECTIONS = """
import socket

def refuse(*args):
    raise AssertionError(f"a connection at import: {args}")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import app.main
"""


WORKERS = """
import sys
import app.main

found = [name for name in sys.modules if name.startswith("app.") and "worker" in name]
assert not found, found
"""


ROUTE = """
from fastapi import APIRouter

router = APIRouter()


@router.get("/{0}")
def read_{0}() -> None: ...
"""
INCLUDING = """
from fastapi import APIRouter

from app.api.admin import users

router = APIRouter(prefix="/admin")
router.include_router(users.router)
"""
SUBFOLDERS = {
    "tasks/billing/invoices.py": "from app.jobs import task\n\n@task()\ndef send() -> None: ...",
    "tasks/.copies/invoices.py": "no Python",
    "models/billing/invoice.py": """
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base


class Invoice(Base):
    __tablename__ = "invoices"

    id: Mapped[int] = mapped_column(primary_key=True)
""",
    "api/admin/__init__.py": INCLUDING,
    "api/admin/users.py": ROUTE.format("users"),
    "api/billing/invoices.py": ROUTE.format("invoices"),
}
FOUND = """
from app.jobs.backends import registry
from app.main import app
from app.models import Base

paths = app.openapi()["paths"]
assert "billing.invoices.send" in registry(), [*registry()]
assert "invoices" in Base.metadata.tables, [*Base.metadata.tables]
assert "/invoices" in paths, paths
assert "/admin/users" in paths and "/users" not in paths, paths
"""


def run(code: str, folder: Path = ROOT) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stderr


def test_no_network_at_import() -> None:
    assert run(REFUSE_CONNECTIONS) == (0, "")


def test_only_the_api_imports_fastapi() -> None:
    """Importing it would take a fifth of a worker's start."""
    found = {}
    for name, command in COMMANDS.items():
        module = re.findall(r"app(?:\.[a-z_]+)+", command)[0]
        code, errors = run(f"import sys, {module}; sys.exit(10 * ('fastapi' in sys.modules))")
        assert code in (0, 10), errors
        found[name] = code == 10
    assert found == {name: name == "api" for name in COMMANDS}


def test_the_api_imports_no_worker() -> None:
    """The API imports all tasks. A worker's module would make connections and a loop of its own."""
    assert run(WORKERS) == (0, "")


def test_modules_in_subfolders_are_found(tmp_path: Path) -> None:
    """A folder's own router stands for the routers in it: what it requires holds for them, too."""
    shutil.copytree(ROOT / "app", tmp_path / "app")
    for name, text in SUBFOLDERS.items():
        file = tmp_path / "app" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert run(FOUND, folder=tmp_path) == (0, "")
