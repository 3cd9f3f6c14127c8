"""Who is calling: no authentication, JWT, or the user's own backend."""

from agentflow_server.auth.alias import install_alias
from agentflow_server.auth.anonymous import NoAuth
from agentflow_server.auth.backend import load_backend
from agentflow_server.auth.custom import CustomAuth
from agentflow_server.auth.jwt import ClaimRules, JwtAuth
from agentflow_server.auth.keys import VerifyingKey, load_key
from agentflow_server.config import AuthConfig, CustomAuthConfig, JwtConfig, NoAuthConfig
from agentflow_server.interfaces import Authenticator

__all__ = [
    "ClaimRules",
    "CustomAuth",
    "JwtAuth",
    "NoAuth",
    "VerifyingKey",
    "install_alias",
    "load_backend",
    "load_key",
    "open_authenticator",
]


def open_authenticator(config: AuthConfig) -> Authenticator:
    """Load key material or the user's backend, and judge it. Raises ConfigError."""
    match config:
        case NoAuthConfig():
            return NoAuth()
        case JwtConfig():
            return _open_jwt(config)
        case CustomAuthConfig():
            backend = load_backend(config.path, config.options)
            return CustomAuth(backend, timeout=config.timeout)


def _open_jwt(config: JwtConfig) -> JwtAuth:
    key = load_key(
        config.secret_key.get_secret_value(),
        config.algorithm,
        variable=config.secret_name,
        allow_weak_secret=config.allow_weak_secret,
    )
    audience = config.audience or []
    rules = ClaimRules(
        issuer=config.issuer,
        audience=frozenset([audience] if isinstance(audience, str) else audience),
        user_id_claim=config.user_id_claim,
        leeway=config.leeway,
    )
    return JwtAuth(key, rules)
