"""Dead letters between RabbitMQ and the ledger: reconciliation, intake of foreign messages, replay."""
