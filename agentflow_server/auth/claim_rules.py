"""What a good token's claims look like, and whom they name: for signed and introspected tokens."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from agentflow_server.auth.claims import (
    ROLE_CLAIMS,
    SCOPE_CLAIMS,
    find_claim,
    find_words,
    read_user_id,
)
from agentflow_server.errors import NotAuthenticated
from agentflow_server.models import JsonObject, Principal

log = logging.getLogger(__name__)

LAST_SECOND = 1e11
"""Later times are milliseconds, or a trick."""

# How issuers mark what is no access token: OpenID Connect and RFC 9068 by `typ`, Keycloak by a
# claim `typ`, Cognito by `token_use`, other libraries by `token_type` or `type`.
_MARKS = ("typ", "token_use", "token_type", "type")
_NO_ACCESS = frozenset(
    {"id", "id_token", "id+jwt", "refresh", "refresh_token", "offline", "serialized-id"}
    | {"logout", "logout_token", "logout+jwt", "secevent+jwt"}
)
# Hashes of what an ID token was issued together with (OpenID Connect Core 3.3.2.11).
_ID_TOKEN_CLAIMS = frozenset({"at_hash", "c_hash", "s_hash"})


# One for all: thousands of callers are remembered.
_CLAIMS_COME_LATER: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What the claims of a good token look like, and which of them mean what.

    `leeway` (seconds) forgives a sender's clock that is ahead of ours: it applies to `nbf` and
    `iat`, never to `exp`. Without `user_id_claim` the caller is `user_id`, else `sub`. A claim may
    be named by a path with dots. `required` gives the value a claim must have: a list means any one
    of its members, null any value; in a claim that is a list, one member is enough.

    `namespace` is put before the ids of users who are only unique together with their issuer;
    ids that begin with one of `reserved` would be somebody's of another issuer.
    """

    issuer: str | None = None
    audience: frozenset[str] = frozenset()
    user_id_claim: str | None = None
    scope_claims: tuple[str, ...] = SCOPE_CLAIMS
    role_claims: tuple[str, ...] = ROLE_CLAIMS
    required: Mapping[str, Any] = field(default_factory=dict)
    namespace: str = ""
    reserved: tuple[str, ...] = ()
    leeway: float = 5.0
    max_lifetime: float | None = None
    max_age: float | None = None
    method: str = "jwt"
    expiry_required: bool = True


class Verdict(NamedTuple):
    """Whom good claims name; they are good while `valid_from <= now < valid_until`."""

    caller: Principal
    valid_from: float
    valid_until: float


def judge_claims(claims: JsonObject, rules: ClaimRules, now: float) -> Verdict:
    """The caller, without his claims. Raises NotAuthenticated."""
    _check_purpose(claims)
    _check_origin(claims, rules)
    _check_required(claims, rules.required)
    user_id = _find_user_id(claims, rules)
    issued_at = _find_time(claims, "iat")
    not_before = _find_time(claims, "nbf")
    expiry = _find_expiry(claims, rules)
    limit = _find_limit(issued_at, expiry, rules)
    valid_from = max(issued_at or 0.0, not_before or 0.0) - rules.leeway
    if now < valid_from:
        raise NotAuthenticated(reason="not_yet_valid")
    # Last, so that "expired" is only ever said of a token that was good once.
    if now >= expiry:
        raise NotAuthenticated(NotAuthenticated.EXPIRED, reason="expired")
    if now >= limit:
        raise NotAuthenticated(NotAuthenticated.EXPIRED, reason="too_old")
    valid_until = min(expiry, limit)
    caller = Principal(
        user_id,
        _CLAIMS_COME_LATER,
        scopes=find_words(claims, rules.scope_claims, split=True),
        roles=find_words(claims, rules.role_claims),
        method=rules.method,
        issuer=claims.get("iss"),
        token_id=claims.get("jti"),
        issued_at=issued_at,
        expires_at=None if math.isinf(valid_until) else valid_until,
    )
    return Verdict(caller, valid_from, valid_until)


def _check_purpose(claims: JsonObject) -> None:
    """An ID, refresh or logout token, or any security event, is not meant for an API."""
    for mark in _MARKS:
        value = claims.get(mark)
        if isinstance(value, str) and value.lower() in _NO_ACCESS:
            raise NotAuthenticated(reason="not_an_access_token")
    if not _ID_TOKEN_CLAIMS.isdisjoint(claims) or isinstance(claims.get("events"), dict):
        raise NotAuthenticated(reason="not_an_access_token")
    # Some issuers copy the nonce of the login into access tokens as well: those have a scope.
    if "nonce" in claims and not any(name in claims for name in ("scope", "scp", "scopes")):
        raise NotAuthenticated(reason="not_an_access_token")


def _check_origin(claims: JsonObject, rules: ClaimRules) -> None:
    if not isinstance(claims.get("jti", ""), str):
        raise NotAuthenticated(reason="bad_jti")
    if rules.issuer is not None and claims.get("iss") != rules.issuer:
        raise NotAuthenticated(reason="issuer_mismatch")
    if not isinstance(claims.get("iss", ""), str):
        raise NotAuthenticated(reason="bad_iss")
    if rules.audience:
        _check_audience(claims.get("aud", []), rules.audience)
    elif "aud" in claims:
        log.warning(
            "refused a token that is meant for a certain audience (`aud`): to accept it, name "
            "that audience in JWT_AUDIENCE, or as `audience` of this method in agentflow.json"
        )
        raise NotAuthenticated(reason="audience_not_configured")


def _check_audience(found: Any, accepted: frozenset[str]) -> None:
    members = found if isinstance(found, list) else [found]
    if not all(isinstance(member, str) for member in members):
        raise NotAuthenticated(reason="bad_aud")
    if accepted.isdisjoint(members):
        raise NotAuthenticated(reason="audience_mismatch")


def _check_required(claims: JsonObject, required: Mapping[str, Any]) -> None:
    if find_unmet(claims, required):
        raise NotAuthenticated(reason="required_claim")


def find_unmet(claims: JsonObject, required: Mapping[str, Any]) -> str | None:
    """The name of the first required claim that is missing or has another value."""
    for name, wanted in required.items():
        found = find_claim(claims, name)
        if found is None or (wanted is not None and not _fits(found, wanted)):
            return name
    return None


def _fits(found: Any, wanted: Any) -> bool:
    values = found if isinstance(found, list) else [found]
    options = wanted if isinstance(wanted, list) else [wanted]
    # True equals 1 in Python, and is another value in JSON.
    return any(
        value == option and isinstance(value, bool) == isinstance(option, bool)
        for value in values
        for option in options
    )


def _find_user_id(claims: JsonObject, rules: ClaimRules) -> str:
    name = rules.user_id_claim or ("user_id" if "user_id" in claims else "sub")
    try:
        user_id = read_user_id(find_claim(claims, name))
    except ValueError:
        raise NotAuthenticated(reason="bad_user_id") from None
    user_id = rules.namespace + user_id
    # Of two issuers one may be called like the other with something behind it.
    foreign = tuple(other for other in rules.reserved if other != rules.namespace)
    if user_id.startswith(foreign):
        raise NotAuthenticated(reason="foreign_user_id")
    return user_id


def _find_expiry(claims: JsonObject, rules: ClaimRules) -> float:
    expiry = _find_time(claims, "exp")
    if expiry is None and rules.expiry_required:
        raise NotAuthenticated(reason="exp_missing")
    return math.inf if expiry is None else expiry


def _find_limit(issued_at: float | None, expiry: float, rules: ClaimRules) -> float:
    """When the token becomes too old."""
    if rules.max_lifetime is None and rules.max_age is None:
        return math.inf
    if issued_at is None:
        raise NotAuthenticated(reason="iat_missing")
    if rules.max_lifetime is not None and expiry - issued_at > rules.max_lifetime:
        raise NotAuthenticated(reason="lifetime_too_long")
    return math.inf if rules.max_age is None else issued_at + rules.max_age


def _find_time(claims: JsonObject, name: str) -> float | None:
    if name not in claims:
        return None
    match claims[name]:
        case bool():
            pass
        case int() | float() as seconds if 0 <= seconds < LAST_SECOND:
            return seconds
    raise NotAuthenticated(reason=f"bad_{name}")
