"""Messages that need a person: headers, reconciliation with the dead-letter queues, intake, replay."""
