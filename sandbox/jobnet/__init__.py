"""A Jobnet frontend to try the broker: the pages of the release note (3.1 to 3.3), in Danish, for invented citizens.

It is an AMQP client of the broker and an example of one: read broker_client.py, then request_store.py. Beside the
citizens' pages it shows the suppliers' inboxes and has switches that make the sandbox's systems fail.
"""
