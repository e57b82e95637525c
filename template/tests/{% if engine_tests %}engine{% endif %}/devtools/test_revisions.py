"""`poe revision` writes what both databases can do, and take back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engine.devtools.started import POE, python
from tests.service import copy_database

CONSTRAINTS = """
from sqlalchemy import ForeignKey

for name in ("code", "b".rjust(60, "a"), "c".rjust(60, "a")):
    setattr(Order, name, mapped_column(String(20), unique=True))
Order.session_id = mapped_column(ForeignKey("user_sessions.id"))
"""
SITES = """
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base


class Site(Base):
    __tablename__ = "sites"

    id: Mapped[int] = mapped_column(primary_key=True)


class Page(Base):
    __tablename__ = "pages"

    id: Mapped[int] = mapped_column(primary_key=True)
"""
MORE = """
    path: Mapped[int] = mapped_column(unique=True)
    site_id: Mapped[int] = mapped_column(ForeignKey("sites.id"))
"""


@pytest.mark.parametrize("beside", [0, pytest.param(1, marks=pytest.mark.postgresql)])
def test_a_revision_fits_both_databases(project: Path, tmp_path: Path, beside: int) -> None:
    """Whichever it is written beside. It adds constraints to old and new tables, or drops them."""
    databases = [
        f"sqlite:///{tmp_path}/new.db",
        copy_database(os.environ["EMPTY_DATABASE"], tmp_path),
    ]
    models = project / "app" / "models"
    with (models / "order.py").open("a") as file:
        file.write(CONSTRAINTS)
    for text in (SITES + MORE, SITES):
        (models / "site.py").write_text(text)
        run(project, databases[beside], *POE, "revision", "changes")
    for database in databases:
        migrate(project, database)
        run(project, database, "-m", "alembic", "downgrade", "app_0001")
        migrate(project, database)


def migrate(project: Path, database: str) -> None:
    """Afterwards the database has what the models say."""
    assert "schema.differs" not in run(project, database, "-m", "app.migrate", "--compare")


def run(project: Path, database: str, *arguments: str) -> str:
    """Returns its log."""
    done = python(project, *arguments, DATABASE_URL=database)
    assert done.returncode == 0, done.stderr
    return done.stderr
