"""A frontend asks: one request from its arrival to its answer. Start at `pipeline.py`."""
