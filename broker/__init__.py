"""The Jobnet booking broker: carries booking requests to jobcenters' systems and answers each once, honestly."""

__version__ = "0.1.0"
