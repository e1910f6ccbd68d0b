"""Run by alembic: migrates the connection that `history.schema.upgrade` hands over."""

from alembic import context

from jarvis_stream.history.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
