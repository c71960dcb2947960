"""The others: a bare loop, FastStream, Dramatiq and Celery, each written as its documentation says."""
