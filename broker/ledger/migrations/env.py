"""Alembic's entry point: runs the migrations on the connection of versions.py; there is no offline mode."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
