"""Requests in the ledger: claims, settles, verifications of uncertain bookings, outcome events that are due."""
