"""Two branches: `jobs` comes with the template, `app` is yours (`poe revision "what changes"`)."""

from __future__ import annotations

import sys
from typing import Any, Literal

from alembic import context
from alembic.operations.ops import MigrationScript
from sqlalchemy import Connection, create_engine, event

from app.config import get_settings
from app.core.database import IS_SQLITE, UtcDateTime, sync_url
from app.core.drivers import PATIENCE
from app.jobs.backends import metadata
from app.models import Base

TARGETS = [Base.metadata, metadata]
OURS = {table.name for target in TARGETS for table in target.sorted_tables}


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Leave alone what others keep in this database (a result backend's tables, say)."""
    return kind != "table" or name in OURS


def render_item(kind: str, item: Any, autogen: Any) -> str | Literal[False]:
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def refuse_nothing(context: Any, revision: Any, scripts: list[MigrationScript]) -> None:
    """Raises SystemExit for a revision without a change."""
    wanted = getattr(context.config.cmd_opts, "autogenerate", False)
    if wanted and all(script.upgrade_ops and script.upgrade_ops.is_empty() for script in scripts):
        sys.exit(
            "nothing is written: the database has all that the models in app/models say."
            " A table without a model stays, until you write `op.drop_table` yourself"
        )


def begin(connection: Connection) -> None:
    """Python's driver begins none for CREATE TABLE: what ended half-way couldn't be repeated."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


options: dict[str, Any] = {"connect_args": {"timeout": PATIENCE}} if IS_SQLITE else {}
engine = create_engine(sync_url(get_settings().database_url), **options)
if IS_SQLITE:
    event.listen(engine, "begin", begin)
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=TARGETS,
        include_name=include_name,
        render_item=render_item,
        process_revision_directives=refuse_nothing,
        render_as_batch=IS_SQLITE,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
