"""Stand-in Planners, booking systems and suppliers: real HTTP servers whose next answers can be scripted.

For tests and for trying things. They know the contract of DESIGN 4 and nothing of the broker.
"""
