"""Tells receivers on the network, over signed and repeated requests, that runs have ended."""

from agentflow_server.webhooks.sender import WebhookSender
from agentflow_server.webhooks.urls import MAX_LENGTH, check_url

__all__ = ["MAX_LENGTH", "WebhookSender", "check_url"]
