"""Maintenance of the ledger: retention, key rotation, conservation check."""
