"""Configuration: what is set, what is refused, and where the jobcenters' systems are.

Imports nothing of ours; the only place that reads the environment.
"""
