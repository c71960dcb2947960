"""The other contestants: a bare loop, FastStream, Dramatiq and Celery, each written as its documentation says."""
