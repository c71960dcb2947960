"""Pure rules of a supplier's queue: its state machine, its retry policy. No I/O."""
