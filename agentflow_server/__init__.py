"""Put one agentflow.json next to your agent and get a production HTTP API for it."""

__version__ = "0.1.0"
