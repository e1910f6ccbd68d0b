"""Removals are spans of epochs, which later writes cannot cross."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

KEY = sa.String(128).with_variant(sa.String(512, collation="C"), "postgresql")


def upgrade() -> None:
    """From 0004. The highest epoch that a removed turn had becomes that of an empty span."""
    op.create_table(
        "jarvis_removals",
        sa.Column("session_id", KEY, primary_key=True),
        sa.Column("before_epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("first_epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("removed_at", sa.Double, nullable=False),
    )
    op.create_index("jarvis_removals_removed_at", "jarvis_removals", ["removed_at"])
    op.execute(
        "INSERT INTO jarvis_removals SELECT '', max(epoch) + 1, max(epoch) + 1, 0"
        " FROM jarvis_removed HAVING max(epoch) IS NOT NULL"
    )
    op.drop_table("jarvis_removed")
    op.add_column(
        "jarvis_sessions",
        sa.Column("titled_epoch", sa.BigInteger, nullable=False, server_default="0"),
    )
