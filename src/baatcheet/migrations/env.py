"""Alembic's environment: run by `baatcheet.platform.migrate`, which hands over the connection."""

from alembic import context

from baatcheet.migrations.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    compare_server_default=True,
    transaction_per_migration=True,  # so that no lock is held for longer than its own migration takes
)
with context.begin_transaction():
    context.run_migrations()
