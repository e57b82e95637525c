"""What hosts look for has indexes of its own, and hosts say which tasks they know.

Nothing that the release before uses is changed: its processes may run beside the new ones.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "jobs_0002"
down_revision = "jobs_0001"
branch_labels = None
depends_on = None

WAITS = "status = 'pending'"
INDEXES = {
    "jobs_due": (["queue", "task", "run_at"], f"{WAITS} AND crashes = 0"),
    "jobs_crashed": (["queue", "run_at"], f"{WAITS} AND crashes > 0"),
    "jobs_rung": (["queue", "wake_at"], f"{WAITS} AND pushes > 0"),
    "jobs_waiting": (["created_at", "id"], WAITS),
    "jobs_ended": (["status", "created_at", "id"], "finished_at IS NOT NULL"),
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, (columns, where) in INDEXES.items():
            create_beside_writers(name, columns, where)
    op.create_table(
        "known_tasks",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column(
            "seen_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="when a host last said that it has it",
        ),
    )


def create_beside_writers(name: str, columns: list[str], where: str) -> None:
    """Make an index. One that was begun and never ended is made anew."""
    condition = sa.text(where)
    op.drop_index(name, "jobs", if_exists=True)
    op.create_index(
        name,
        "jobs",
        columns,
        postgresql_where=condition,
        sqlite_where=condition,
        postgresql_concurrently=True,
    )


def downgrade() -> None:
    op.drop_table("known_tasks")
    for name in INDEXES:
        op.drop_index(name, "jobs")
