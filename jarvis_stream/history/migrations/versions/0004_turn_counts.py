"""Sessions know how many turns they have; the highest epoch is found by an index."""

import sqlalchemy as sa
from alembic import op

from jarvis_stream.history.schema import COUNTING

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Upgrade from 0003."""
    op.add_column(
        "jarvis_sessions", sa.Column("turn_count", sa.Integer, nullable=False, server_default="0")
    )
    op.create_index("jarvis_turns_epoch", "jarvis_turns", ["epoch"])
    op.execute(
        "UPDATE jarvis_sessions SET turn_count = (SELECT count(*) FROM jarvis_turns"
        " WHERE jarvis_turns.session_id = jarvis_sessions.session_id)"
    )
    for statement in COUNTING[op.get_bind().dialect.name]:
        op.execute(sa.text(statement))
