"""The messages on the wire: requests, answers, outcome events, reports, and the external systems' responses.

Models and how they are read. No I/O, no settings, no import from other packages of the project.
"""
