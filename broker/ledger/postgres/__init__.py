"""Connections, group commit, heartbeat, tables and versions in PostgreSQL."""
