"""Whom a revocation can be about: the user ids and issuers that the configured methods know."""

from collections.abc import Sequence

from agentflow_server.config import (
    AuthConfig,
    IntrospectionConfig,
    JwtConfig,
    NoAuthConfig,
    TokenServerAuthConfig,
    find_namespaces,
)
from agentflow_server.errors import ConfigError


def refuse_unknown_user(user_id: str, methods: Sequence[AuthConfig]) -> None:
    """Raises ConfigError when no method could ever call somebody so."""
    namespaces = find_namespaces(methods)
    if "" in namespaces or _begins_with_any(user_id, namespaces):
        return
    forms = ", ".join(_qualify(user_id, namespaces))
    raise ConfigError(
        f"--user-id: nobody can be {user_id!r}: with several issuers and none of them primary, "
        f"a user is ISSUER|ID, here one of {forms}"
    )


def find_namesakes(user_id: str, methods: Sequence[AuthConfig]) -> Sequence[str]:
    """Who has the same id at an issuer whose ids do not stand alone."""
    namespaces = find_namespaces(methods)
    return [] if _begins_with_any(user_id, namespaces) else _qualify(user_id, namespaces)


def refuse_unknown_issuer(issuer: str, methods: Sequence[AuthConfig]) -> None:
    """Raises ConfigError when no method accepts tokens of that issuer."""
    issuers = [
        method.issuer
        for method in methods
        if isinstance(method, JwtConfig | IntrospectionConfig | TokenServerAuthConfig)
    ]
    if issuer in issuers or None in issuers:  # one without an issuer takes anybody's
        return
    known = ", ".join(repr(one) for one in dict.fromkeys(issuers)) or "none"
    raise ConfigError(
        f"--issuer: {issuer!r} is not configured, so no token of it is accepted anyway; "
        f"configured, and compared byte for byte: {known}"
    )


def is_open(methods: Sequence[AuthConfig]) -> bool:
    """Nobody is asked who he is."""
    return all(isinstance(method, NoAuthConfig) for method in methods)


def _begins_with_any(user_id: str, namespaces: Sequence[str]) -> bool:
    return any(user_id.startswith(one) and user_id != one for one in namespaces if one)


def _qualify(user_id: str, namespaces: Sequence[str]) -> Sequence[str]:
    found = dict.fromkeys(one for one in namespaces if one)
    return [repr(f"{namespace}{user_id}") for namespace in found]
