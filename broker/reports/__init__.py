"""A supplier is told: a failure report from the failure to its delivery. Start at `enrichment.py`, then `delivery.py`."""
