"""Who is calling: no authentication, JWT, introspection, API keys, or the user's own backend."""

from agentflow_server.auth.alias import install_alias
from agentflow_server.auth.anonymous import NoAuth
from agentflow_server.auth.any_of import AnyOf
from agentflow_server.auth.api_key import ApiKeyAuth
from agentflow_server.auth.backend import load_backend
from agentflow_server.auth.claim_rules import ClaimRules
from agentflow_server.auth.custom import CustomAuth
from agentflow_server.auth.introspection import IntrospectionAuth
from agentflow_server.auth.jwt import JwtAuth
from agentflow_server.auth.keys import VerifyingKey, load_key
from agentflow_server.auth.opening import open_authenticator
from agentflow_server.auth.revocation import Revocations

__all__ = [
    "AnyOf",
    "ApiKeyAuth",
    "ClaimRules",
    "CustomAuth",
    "IntrospectionAuth",
    "JwtAuth",
    "NoAuth",
    "Revocations",
    "VerifyingKey",
    "install_alias",
    "load_backend",
    "load_key",
    "open_authenticator",
]
