"""Log, counters, Prometheus text format and traces, without personal data."""
