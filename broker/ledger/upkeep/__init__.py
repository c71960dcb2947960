"""Retention, re-encryption with new keys, and the completeness check."""
