"""What the token server says of itself (RFC 8414)."""

from collections.abc import Collection
from typing import Any

from agentflow_server.config import TokenServerConfig
from agentflow_server.token_server.pkce import METHOD


def describe_server(config: TokenServerConfig, scopes: Collection[str]) -> dict[str, Any]:
    issuer, clients = config.issuer, config.clients.values()
    is_confidential = any(client.secret is not None for client in clients)
    methods = ["none"]
    if is_confidential:
        methods += ["client_secret_basic", "client_secret_post"]
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "revocation_endpoint": f"{issuer}/revoke",
        "userinfo_endpoint": f"{issuer}/userinfo",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "scopes_supported": sorted(scopes),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": sorted({grant for one in clients for grant in one.grants}),
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
        "code_challenge_methods_supported": [METHOD],
        "authorization_response_iss_parameter_supported": True,
    }
