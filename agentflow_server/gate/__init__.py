"""An agent that runs only for whoever holds a good token: in code, without a server around it."""

from agentflow_server.gate.card import AuthCard
from agentflow_server.gate.errors import (
    BadCard,
    CardError,
    CardExpired,
    CardNotFound,
    CardRefused,
    CardUnverified,
)
from agentflow_server.gate.keys import LocalKeys
from agentflow_server.gate.requiring import require_auth

__all__ = [
    "AuthCard",
    "BadCard",
    "CardError",
    "CardExpired",
    "CardNotFound",
    "CardRefused",
    "CardUnverified",
    "LocalKeys",
    "require_auth",
]
