"""What operators see and steer: who ran a job, its tries, what submitted it, and paused queues.

Nothing that the releases before use is changed: their processes may run beside the new ones, but
they don't heed a pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import OperationalError

revision = "jobs_0004"
down_revision = "jobs_0003"
branch_labels = None
depends_on = None

TIMES = 60
# What columns kept, and what they keep by now.
COMMENTS = {
    "wake_at": (
        "when the relay looks next: push due or lease end",
        "when its lease ends, or its message counts as late",
    ),
    "pushes": (None, "messages sent for it"),
}
WAITS = "status = 'pending'"
LISTED = "status || '' = 'pending'"


def columns() -> list[tuple[str, sa.Column[Any]]]:
    array = sa.JSON().with_variant(JSONB(), "postgresql")
    worker = "host:pid of the process that took it last"
    tries = "the last ten that ended, but for one that succeeded"
    return [
        ("jobs", sa.Column("worker", sa.String(220), comment=worker)),
        ("jobs", sa.Column("tries", array, comment=tries)),
        ("jobs", sa.Column("origin", sa.JSON(), comment="what submitted it")),
        ("processes", sa.Column("version", sa.String(100), comment="of the service: RELEASE")),
    ]


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for table, column in columns():
            there = {each["name"] for each in sa.inspect(op.get_bind()).get_columns(table)}
            if column.name not in there:
                patiently(partial(op.add_column, table, column))
        patiently(partial(op.drop_index, "jobs_waiting", "jobs", if_exists=True))
        list_by(LISTED, concurrently=True)
    say(1)
    op.create_table(
        "queues",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("paused_at", sa.DateTime(timezone=True), comment="null: it isn't paused"),
    )


def say(what: int) -> None:
    if op.get_bind().dialect.supports_comments:
        for name, comments in COMMENTS.items():
            op.alter_column("jobs", name, comment=comments[what])


def list_by(condition: str, *, concurrently: bool) -> None:
    """Make the index for lists of jobs that wait.

    Hosts' statements imply the condition that it had. So they used it when the statistics were from
    a time in which nothing waited, and read all jobs that waited for each queue and task.
    """
    op.create_index(
        "jobs_waiting",
        "jobs",
        ["created_at", "id"],
        postgresql_where=sa.text(condition),
        sqlite_where=sa.text(condition),
        postgresql_concurrently=concurrently,
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
    raise RuntimeError("a table is locked: end what holds its lock, and migrate again")


def downgrade() -> None:
    op.drop_index("jobs_waiting", "jobs")
    list_by(WAITS, concurrently=False)
    op.drop_table("queues")
    say(0)
    for table, column in columns():
        op.drop_column(table, column.name)
