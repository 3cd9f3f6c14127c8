"""An OAuth 2.0 authorization server for local users (RFC 6749, 7009, 7636, 8414, 9068, 9207)."""

from agentflow_server.token_server.errors import AuthorizationRefused, LoginRefused, OAuthError
from agentflow_server.token_server.forms import (
    AuthorizationRequest,
    ClientLogin,
    LoggedIn,
    TokenAnswer,
)
from agentflow_server.token_server.keys import make_signing_key
from agentflow_server.token_server.permissions import ScopeRules
from agentflow_server.token_server.server import TokenServer, TokenStores

__all__ = [
    "AuthorizationRefused",
    "AuthorizationRequest",
    "ClientLogin",
    "LoggedIn",
    "LoginRefused",
    "OAuthError",
    "ScopeRules",
    "TokenAnswer",
    "TokenServer",
    "TokenStores",
    "make_signing_key",
]
