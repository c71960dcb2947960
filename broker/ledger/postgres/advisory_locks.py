"""Every advisory lock of PostgreSQL that the broker takes by a fixed number; each is the same in every process.

Merging reports (reports/new_reports.py) takes further locks, numbered by the first eight bytes of a merge token.
"""

UPGRADE = 0x6A6F626E6574
""""jobnet" in ASCII. Held by the transaction that runs the migrations: processes that start together migrate once."""
BUILD_INDEXES = 0x696E646578
""""index" in ASCII. Held while indexes are built beside working processes."""
RECONCILE_DEAD_QUEUES = 0x64656164
""""dead" in ASCII. Held by the process that compares dead-letter queues with the ledger."""
PURGE = 0x7075726765
""""purge" in ASCII. Held by the process that deletes what retention lets go."""
