"""What the two commands need around the broker: private servers, started and stopped without a trace."""
