"""Requests in the ledger: claims, settles, verifications."""
