"""A client for agentflow servers, for threads and for asyncio."""

from agentflow_server.client.answers import AgentInfo, State, Turn
from agentflow_server.client.clients import AgentflowClient, AsyncAgentflowClient
from agentflow_server.client.credentials import (
    ClientCredentials,
    Credentials,
    FunctionToken,
    Password,
    RefreshToken,
    StaticToken,
)
from agentflow_server.client.errors import (
    AgentflowClientError,
    Conflict,
    Forbidden,
    InvalidRequest,
    LoginFailed,
    NotAuthenticated,
    NotFound,
    RateLimited,
    RunFailed,
    ServerFailed,
    ServerUnreachable,
    TimedOut,
    UnexpectedAnswer,
)
from agentflow_server.client.stores import KeyringTokens, MemoryTokens, TokenFile, TokenStore
from agentflow_server.client.tokens import Token

__all__ = [
    "AgentInfo",
    "AgentflowClient",
    "AgentflowClientError",
    "AsyncAgentflowClient",
    "ClientCredentials",
    "Conflict",
    "Credentials",
    "Forbidden",
    "FunctionToken",
    "InvalidRequest",
    "KeyringTokens",
    "LoginFailed",
    "MemoryTokens",
    "NotAuthenticated",
    "NotFound",
    "Password",
    "RateLimited",
    "RefreshToken",
    "RunFailed",
    "ServerFailed",
    "ServerUnreachable",
    "State",
    "StaticToken",
    "TimedOut",
    "Token",
    "TokenFile",
    "TokenStore",
    "Turn",
    "UnexpectedAnswer",
]
