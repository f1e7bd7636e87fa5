"""The gateway: HAProxy in front of all models, and the agent that tells it which pods stand behind them."""
