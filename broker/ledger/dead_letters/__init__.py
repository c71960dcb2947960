"""Dead letters in the ledger: the rows, their lists, replays."""
