"""Stand-in Planners, booking systems and suppliers: real HTTP servers whose next answers can be scripted.

For tests, and to try the broker. They follow the contract (docs/contract.md#calls) and do not import the broker.
"""
