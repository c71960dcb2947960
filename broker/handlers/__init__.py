"""The business rules of each message type: functions from one validated message and the clients to a result.

A handler returns a result or raises one of `broker.errors`. It never publishes, acknowledges, sleeps or retries.
"""
