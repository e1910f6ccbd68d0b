"""Titles that were given; of turns their trace, and more of how they ended."""

import sqlalchemy as sa
from alembic import op

from jarvis_stream.history.schema import AnyText

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """From 0001."""
    op.add_column("jarvis_sessions", sa.Column("title", AnyText))
    op.add_column("jarvis_turns", sa.Column("trace_id", sa.String(32)))
    op.add_column("jarvis_turns", sa.Column("error", AnyText))
    op.add_column("jarvis_turns", sa.Column("retryable", sa.Boolean))
    op.add_column("jarvis_turns", sa.Column("ended_at", sa.Double))
