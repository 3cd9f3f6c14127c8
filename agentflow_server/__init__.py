"""Put one agentflow.json next to your agent and get a production HTTP API for it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentflow_server.adapters.approving import approve, approve_sync
    from agentflow_server.adapters.asking import ask, ask_sync
    from agentflow_server.app import AgentflowApp, create_app
    from agentflow_server.client import AgentflowClient, AsyncAgentflowClient
    from agentflow_server.connections import (
        connection,
        connection_client,
        connection_client_sync,
        connection_sync,
    )
    from agentflow_server.errors import (
        AgentflowError,
        ConfigError,
        ConnectionUnavailable,
        NotApproved,
    )
    from agentflow_server.gate import AuthCard, require_auth
    from agentflow_server.interfaces import Agent, BaseAuth, RunContext
    from agentflow_server.models import Message, Principal, Run, Thread
    from agentflow_server.mounting import include_agentflow

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AgentflowApp",
    "AgentflowClient",
    "AgentflowError",
    "AsyncAgentflowClient",
    "AuthCard",
    "BaseAuth",
    "ConfigError",
    "ConnectionUnavailable",
    "Message",
    "NotApproved",
    "Principal",
    "Run",
    "RunContext",
    "Thread",
    "approve",
    "approve_sync",
    "ask",
    "ask_sync",
    "connection",
    "connection_client",
    "connection_client_sync",
    "connection_sync",
    "create_app",
    "include_agentflow",
    "require_auth",
]

_HOMES = {
    "Agent": "interfaces",
    "AgentflowApp": "app",
    "AgentflowClient": "client",
    "AgentflowError": "errors",
    "AsyncAgentflowClient": "client",
    "AuthCard": "gate",
    "BaseAuth": "interfaces",
    "ConfigError": "errors",
    "ConnectionUnavailable": "errors",
    "Message": "models",
    "NotApproved": "errors",
    "Principal": "models",
    "Run": "models",
    "RunContext": "interfaces",
    "Thread": "models",
    "approve": "adapters.approving",
    "approve_sync": "adapters.approving",
    "ask": "adapters.asking",
    "ask_sync": "adapters.asking",
    "connection": "connections",
    "connection_client": "connections",
    "connection_client_sync": "connections",
    "connection_sync": "connections",
    "create_app": "app",
    "include_agentflow": "mounting",
    "require_auth": "gate",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: `agentflow --help` needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
