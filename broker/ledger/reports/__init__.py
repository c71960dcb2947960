"""Failure reports in the ledger: intake, hand-over to the lanes, attempts and their results, lanes."""
