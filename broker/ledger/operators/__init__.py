"""Read models and actions for operators: overview, suppliers, stories, lanes, personal data, flow, gauges."""
