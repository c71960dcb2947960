"""Alembic's entrance: runs the migrations on the connection of versions.py; there is no offline mode."""

from __future__ import annotations

from alembic import context

from broker.ledger.postgres.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
