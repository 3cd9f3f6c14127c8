"""Credentials for other APIs, for tools that call them; they stay in this process."""

from agentflow_server.connections.asking import (
    connection,
    connection_client,
    connection_client_sync,
    connection_sync,
)
from agentflow_server.connections.opened import Connections

__all__ = [
    "Connections",
    "connection",
    "connection_client",
    "connection_client_sync",
    "connection_sync",
]
