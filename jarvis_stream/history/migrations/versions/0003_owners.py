"""Sessions have owners, and ids stand behind their owner's name."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

KEY = sa.String(128).with_variant(sa.String(512, collation="C"), "postgresql")


def upgrade() -> None:
    """From 0002. What is there belongs to nobody: to those who have no name."""
    op.add_column("jarvis_sessions", sa.Column("owner", KEY, nullable=False, server_default=""))
    op.drop_index("jarvis_sessions_newest", "jarvis_sessions")
    op.create_index(
        "jarvis_sessions_newest", "jarvis_sessions", ["owner", "updated_at", "session_id"]
    )
    if op.get_bind().dialect.name == "sqlite":
        return  # where a text's declared length means nothing, and cannot be changed
    # A longer varchar is only a note in the catalogue: no table is written anew.
    for table, column in (
        ("jarvis_sessions", "session_id"),
        ("jarvis_turns", "session_id"),
        ("jarvis_turns", "stream_id"),
        ("jarvis_pieces", "stream_id"),
    ):
        op.alter_column(table, column, type_=KEY)
