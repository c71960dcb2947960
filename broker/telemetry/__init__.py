"""Log, counters, Prometheus exposition and traces. Never personal data."""
