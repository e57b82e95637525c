"""Two branches: `jobs` comes with the template, `app` is yours (`poe revision "what changes"`)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Literal

from alembic import context
from alembic.operations.ops import (
    CreateForeignKeyOp,
    CreateTableOp,
    CreateUniqueConstraintOp,
    MigrationScript,
    OpContainer,
)
from sqlalchemy import Connection, ForeignKeyConstraint, UniqueConstraint, create_engine, event

from app.config import get_settings
from app.core.database import IS_SQLITE, UtcDateTime, sync_url
from app.core.drivers import PATIENCE
from app.core.outages import mark_errors_of
from app.jobs.backends import metadata
from app.models import Base

TARGETS = [Base.metadata, metadata]
OURS = {table.name for target in TARGETS for table in target.sorted_tables}
LONGEST = 63  # a name in PostgreSQL

if taken := {*Base.metadata.tables} & {*metadata.tables}:
    sys.exit(f"app/models: app/jobs has a table {min(taken)}, too: choose another name")


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Leave alone what others keep in this database (a result backend's tables, say)."""
    return kind != "table" or name in OURS


def render_item(kind: str, item: Any, autogen: Any) -> str | Literal[False]:
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def revise(context: Any, revision: Any, scripts: list[MigrationScript]) -> None:
    """Name the scripts' constraints. Raises SystemExit for a revision without a change."""
    for script in scripts:
        for up, down in zip(script.upgrade_ops_list, script.downgrade_ops_list, strict=True):
            name_constraints(up)
            up.reverse_into(down)
    wanted = getattr(context.config.cmd_opts, "autogenerate", False)
    if wanted and all(script.upgrade_ops and script.upgrade_ops.is_empty() for script in scripts):
        sys.exit(
            "nothing is written: the database has all that the models in app/models say."
            " A table without a model stays, until you write `op.drop_table` yourself"
        )


def name_constraints(steps: OpContainer) -> None:
    """Name all constraints: SQLite can neither add nor drop one without a name."""
    for step in steps.ops:
        match step:
            case OpContainer():
                name_constraints(step)
            case CreateTableOp():
                name_parts(step)
            case CreateUniqueConstraintOp(constraint_name=None, table_name=table, columns=columns):
                step.constraint_name = name_of(table, columns, "key")
            case CreateForeignKeyOp(constraint_name=None, source_table=table, local_cols=columns):
                step.constraint_name = name_of(table, columns, "fkey")


def name_parts(step: CreateTableOp) -> None:
    for part in step.columns:
        if isinstance(part, (UniqueConstraint, ForeignKeyConstraint)) and part.name is None:
            kind = "key" if isinstance(part, UniqueConstraint) else "fkey"
            part.name = name_of(step.table_name, [each.name for each in part.columns], kind)


def name_of(table: str, columns: Iterable[str], kind: str) -> str:
    """The name that PostgreSQL gives. Where it is too long, its end is a hash."""
    name = "_".join([table, *columns, kind])
    short = f"{name[: LONGEST - 9]}_{sha256(name.encode()).hexdigest()[:8]}"
    return short if len(name) > LONGEST else name


def begin(connection: Connection) -> None:
    """Python's driver begins none for CREATE TABLE, so half a migration couldn't be repeated."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


options: dict[str, Any] = {"connect_args": {"timeout": PATIENCE}} if IS_SQLITE else {}
engine = create_engine(sync_url(get_settings().database_url), hide_parameters=True, **options)
mark_errors_of(engine)
if IS_SQLITE:
    event.listen(engine, "begin", begin)
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=TARGETS,
        include_name=include_name,
        render_item=render_item,
        process_revision_directives=revise,
        render_as_batch=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
