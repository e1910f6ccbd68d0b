"""Sessions, turns, pieces of answers, instances, removed epochs."""

import sqlalchemy as sa
from alembic import op

from jarvis_stream.history.schema import AnyText

revision = "0001"
down_revision = None

ID = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")


def upgrade() -> None:
    """From nothing."""
    op.create_table(
        "jarvis_sessions",
        sa.Column("session_id", ID, primary_key=True),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
    op.create_index("jarvis_sessions_newest", "jarvis_sessions", ["updated_at", "session_id"])
    op.create_table(
        "jarvis_turns",
        sa.Column("stream_id", ID, primary_key=True),
        sa.Column(
            "session_id",
            ID,
            sa.ForeignKey("jarvis_sessions.session_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("instance_id", ID, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("finish_reason", sa.Text),
        sa.Column("error_code", sa.Text),
        sa.Column("usage", sa.Text),
        sa.Column("chars", sa.Integer, nullable=False),
        sa.Column("prompt", AnyText, nullable=False),
        sa.Column("answer", AnyText, nullable=False),
    )
    op.create_index("jarvis_turns_of_session", "jarvis_turns", ["session_id", "epoch"])
    op.create_index(
        "jarvis_turns_streaming",
        "jarvis_turns",
        ["instance_id"],
        sqlite_where=sa.text("status = 'streaming'"),
        postgresql_where=sa.text("status = 'streaming'"),
    )
    op.create_table(
        "jarvis_pieces",
        sa.Column(
            "stream_id",
            ID,
            sa.ForeignKey("jarvis_turns.stream_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("start", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("text", AnyText, nullable=False),
    )
    op.create_table(
        "jarvis_instances",
        sa.Column("instance_id", ID, primary_key=True),
        sa.Column("seen_at", sa.Double, nullable=False),
    )
    op.create_table("jarvis_removed", sa.Column("epoch", sa.BigInteger, primary_key=True))
