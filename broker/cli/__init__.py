"""The command line `jobnet-broker`. Start at `main.py`."""
