"""Reports in the ledger: intake, hand-over, attempts, lanes."""
