"""The tables of the job engine."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "jobs_0001"
down_revision = None
branch_labels = ("jobs",)
depends_on = None

AWARE = sa.DateTime(timezone=True)


def partial(name: str, table: str, columns: list[str], where: str, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(
        name, table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition
    )


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("task", sa.String(200), nullable=False),
        sa.Column("queue", sa.String(100), nullable=False),
        sa.Column("args", sa.JSON(), comment="gone once the job has succeeded"),
        sa.Column("key", sa.String(300), comment="unique per task while the job is unfinished"),
        sa.Column("keep_key", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("status", sa.String(20), nullable=False, server_default="pending"),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("pushes", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("result", sa.JSON()),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", AWARE, nullable=False),
        sa.Column("run_at", AWARE, nullable=False, comment="not before"),
        sa.Column("wake_at", AWARE, comment="when the relay looks next: push due or lease end"),
        sa.Column("started_at", AWARE),
        sa.Column("finished_at", AWARE),
    )
    partial("jobs_wake_at", "jobs", ["wake_at"], "wake_at IS NOT NULL")
    held = "key IS NOT NULL AND (keep_key OR status IN ('pending', 'running'))"
    partial("jobs_key", "jobs", ["task", "key"], held, unique=True)
    partial("jobs_dead", "jobs", ["finished_at"], "status = 'dead'")
    partial("jobs_running", "jobs", ["task"], "status = 'running'")
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("declared", sa.JSON(), comment="what the code last said; null: by REST"),
        sa.Column(
            "definition",
            sa.JSON(),
            nullable=False,
            comment="what is in force: trigger, args, grace",
        ),
        sa.Column("task", sa.String(200), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("revision", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("next_tick", AWARE, comment="null: over"),
        sa.Column("last_tick", AWARE),
        sa.Column("last_job_id", sa.Uuid()),
        sa.Column("missed_since", AWARE),
        sa.Column("missed_until", AWARE),
    )
    due = "next_tick IS NOT NULL AND NOT paused"
    partial("schedules_next_tick", "schedules", ["next_tick"], due)


def downgrade() -> None:
    op.drop_table("schedules")
    op.drop_table("jobs")
