"""Dead letters in the ledger: letters, places in queues, replays."""
