"""Label values from closed sets: whatever a client invents becomes "other"."""

from collections.abc import Mapping
from typing import Any

OTHER = "other"

HTTP_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
AUTH_METHODS = frozenset({"none", "jwt", "introspection", "api_key", "custom"})
AUTH_REASONS = frozenset({
    "alg_not_allowed", "audience_mismatch", "audience_not_configured", "backend_failed",
    "backend_timeout", "bad_aud", "bad_exp", "bad_header", "bad_iat", "bad_iss", "bad_jti",
    "bad_kid", "bad_nbf", "bad_payload", "bad_signature", "bad_ticket", "bad_user_id", "closing",
    "credential_store_unavailable", "credential_too_long", "exp_missing", "expired",
    "foreign_user_id", "header_not_supported", "http_401", "http_403", "iat_missing", "inactive",
    "introspection_failed", "introspection_unreadable", "issuer_mismatch", "keys_unavailable",
    "lifetime_too_long", "malformed", "malformed_api_key", "missing", "no_usable_keys",
    "not_allowed", "not_an_access_token", "not_an_api_key", "not_one_token", "not_recognised",
    "not_yet_valid", "other_scheme", "rate_limited", "refused", "required_claim",
    "revocations_unavailable", "revoked", "several_credentials", "too_long", "too_old",
    "typ_not_allowed", "unknown_api_key", "unknown_key", "unusable_answer", "unverifiable",
    "wrong_secret",
})  # fmt: skip
"""The reasons of docs/audit.md."""


def find_method(scope: Mapping[str, Any]) -> str:
    method: str = scope["method"]
    return method if method in HTTP_METHODS else OTHER


def find_route(scope: Mapping[str, Any]) -> str:
    """The template of the route that was found, `/threads/{thread_id}`: never the path itself."""
    route = scope.get("route")
    if route is None:
        return OTHER
    template: str = route.path
    return template


def auth_method(method: str | None) -> str:
    if method is None:
        return "unknown"
    return method if method in AUTH_METHODS else OTHER


def auth_reason(reason: str | None) -> str:
    if reason is None:
        return ""
    return reason if reason in AUTH_REASONS else OTHER
