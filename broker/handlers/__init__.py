"""What is done for each message: functions from one validated message and the clients to a result.

A handler returns or raises one of `broker.errors`; it never publishes, acknowledges, sleeps or retries.
"""
