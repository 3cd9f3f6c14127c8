"""Label values from closed sets: whatever a client invents becomes "other"."""

from collections.abc import Mapping
from typing import Any

OTHER = "other"

HTTP_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
GRANTS = frozenset({"password", "refresh_token", "authorization_code", "client_credentials"})
AUTH_METHODS = GRANTS | {"none", "jwt", "introspection", "api_key", "custom", "token_server"}
AUTH_REASONS = frozenset({
    "alg_not_allowed", "audience_mismatch", "audience_not_configured", "backend_failed",
    "backend_timeout", "bad_aud", "bad_credentials", "bad_exp", "bad_header", "bad_iat", "bad_iss",
    "bad_jti", "bad_kid", "bad_nbf", "bad_payload", "bad_signature", "bad_ticket", "bad_totp",
    "bad_user_id", "body_incomplete", "body_timeout", "body_too_large", "busy", "closing",
    "code_expired", "code_reused", "credential_store_unavailable", "credential_too_long",
    "exp_missing", "expired", "foreign_code", "foreign_refresh_token", "foreign_user_id",
    "header_not_supported", "http_401", "http_403", "iat_missing", "inactive",
    "introspection_failed", "introspection_unreadable", "invalid_client", "invalid_grant",
    "invalid_request", "invalid_scope", "issuer_mismatch", "keys_unavailable", "lifetime_too_long",
    "malformed", "malformed_api_key", "missing", "no_signing_key", "no_such_user", "no_usable_keys",
    "not_allowed", "not_an_access_token", "not_an_api_key", "not_one_token", "not_recognised",
    "not_yet_valid", "other_scheme", "password_changed", "rate_limited", "redirect_uri_mismatch",
    "refresh_token_expired", "refresh_token_replaced", "refresh_token_reused", "refused",
    "required_claim", "revocations_unavailable", "revoked", "session_ended", "several_credentials",
    "too_long", "too_old", "totp_missing", "totp_replayed", "typ_not_allowed",
    "unauthorized_client", "unknown_api_key", "unknown_code", "unknown_key",
    "unknown_refresh_token", "unsupported_grant_type", "unusable_answer", "unusable_signing_key",
    "unverifiable", "wrong_secret", "wrong_verifier",
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
