"""Read models for the operators' pages and commands."""
