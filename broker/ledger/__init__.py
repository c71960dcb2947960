"""The ledger in PostgreSQL: each request and report, its state, and when it is due (docs/architecture.md#ledger)."""
