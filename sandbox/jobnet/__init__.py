"""A Jobnet frontend to try the broker with: the pages of the release note (3.1 to 3.3), in Danish, for invented citizens.

It is itself an AMQP client of the broker, and the example of how to be one: read asking.py, then story.py. Beside the
citizens' pages it shows the suppliers' inboxes and has switches that make the sandbox's systems ill.
"""
