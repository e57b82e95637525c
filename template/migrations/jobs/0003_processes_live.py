"""Processes say that they live and what they know; a job says for which arguments it was made.

Nothing that 0.1.0 uses is changed: its processes may run beside the new ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import OperationalError

revision = "jobs_0003"
down_revision = "jobs_0002"
branch_labels = None
depends_on = None

AWARE = sa.DateTime(timezone=True)
TIMES = 60


def columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("signature", sa.String(16), comment="of its task where it was submitted"),
        sa.Column("refused_at", AWARE, comment="when a host first didn't take its arguments"),
    ]


def upgrade() -> None:
    with op.get_context().autocommit_block():
        there = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("jobs")}
        for column in [each for each in columns() if each.name not in there]:
            patiently(partial(op.add_column, "jobs", column))
    op.drop_table("known_tasks")
    op.create_table(
        "known_tasks",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("signature", sa.String(16), primary_key=True, server_default=""),
        sa.Column("seen_at", AWARE, nullable=False, comment="when a live process last knew it"),
    )
    op.create_table(
        "processes",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("host", sa.String(200), nullable=False, comment="the machine's name"),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("backend", sa.String(50), comment="whose queues it hosts; null: it hosts none"),
        sa.Column("queues", sa.JSON(), nullable=False),
        sa.Column(
            "tasks", sa.JSON(), nullable=False, comment="that it knows, with their signatures"
        ),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("busy", sa.Integer(), nullable=False, comment="slots, when it was seen"),
        sa.Column("started_at", AWARE, nullable=False),
        sa.Column("seen_at", AWARE, nullable=False),
    )


def patiently(change: Callable[[], Any]) -> None:
    """Make a change. If it waits for its lock all others wait, so it gives up soon and tries again.

    A pooler gives the connection to others, so the limit must not outlive the transaction.
    """
    bind = op.get_bind()
    if bind.dialect.name == "sqlite":
        change()
        return
    driver: Any = bind.connection.driver_connection
    for _ in range(TIMES):
        try:
            with driver.transaction():
                op.execute("SET LOCAL lock_timeout = '1s'")
                change()
            return
        except OperationalError:
            time.sleep(1)
    raise RuntimeError("jobs is locked: end what holds its lock, and migrate again")


def downgrade() -> None:
    op.drop_table("processes")
    op.drop_table("known_tasks")
    op.create_table(
        "known_tasks",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("seen_at", AWARE, nullable=False, comment="when a host last said that it has it"),
    )
    for column in columns():
        op.drop_column("jobs", column.name)
