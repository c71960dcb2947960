"""Health of one worker: /healthz, /readyz, /metrics and the periodic checks behind them."""
