"""Why a token is refused, for the operator: which rule, which setting. Never sent to a client."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agentflow_server.auth.claim_rules import LAST_SECOND, ClaimRules, find_unmet
from agentflow_server.auth.claims import find_claim
from agentflow_server.auth.jwt import JwtAuth
from agentflow_server.auth.token import MAX_TOKEN, peek
from agentflow_server.errors import AuthUnavailable, NotAuthenticated
from agentflow_server.models import JsonObject, Principal

REASONS: Mapping[str, tuple[str, str]] = {
    "too_long": ("R16", f"it is longer than {MAX_TOKEN} characters"),
    "malformed": (
        "R15",
        "it is not three parts of canonical base64url with dots between them, the last not empty",
    ),
    "bad_header": ("R17, R18", "its header is no strict JSON object in UTF-8 of at most 2 kB"),
    "bad_payload": ("R17, R18", "its payload is not a strict JSON object in UTF-8"),
    "alg_not_allowed": (
        "R9",
        (
            "its alg is {alg}; accepted with this kid: one of {algorithms}, as the keys and the "
            "setting `algorithm` (JWT_ALGORITHM) or `algorithms` say"
        ),
    ),
    "header_not_supported": (
        "R12, R13",
        "its header has one of crit, b64, zip, cty, jku, x5u, jwk, x5c, which are never accepted",
    ),
    "bad_kid": ("R26", "its kid is not a string"),
    "typ_not_allowed": (
        "R14",
        "its typ is {typ}; accepted are none at all and {types}: see the setting `token_type`",
    ),
    "unknown_key": (
        "R26, R49",
        (
            "no key has the kid {kid} and the alg {alg}; known kids: {kids}. With an issuer, new keys "
            "are looked for at most once in 30 s"
        ),
    ),
    "bad_signature": (
        "R10, R11",
        "its signature was not made with a key we have: another secret or key, or it was changed",
    ),
    "not_an_access_token": (
        "R55",
        (
            "it is an ID, refresh or logout token (typ, token_use, token_type, type, at_hash, c_hash, "
            "s_hash, events, or nonce without a scope): send the access token"
        ),
    ),
    "bad_jti": ("R22", "its jti is not a string"),
    "bad_iss": ("R23", "its iss is not a string"),
    "issuer_mismatch": (
        "R23",
        "its iss is {iss}; the setting `issuer` (JWT_ISSUER) is {issuer}, compared byte for byte",
    ),
    "audience_not_configured": (
        "R23",
        "its aud is {aud}, and no audience is configured: set `audience` (JWT_AUDIENCE)",
    ),
    "audience_mismatch": (
        "R23",
        "its aud is {aud}; the setting `audience` (JWT_AUDIENCE) is {audience}",
    ),
    "bad_aud": ("R23", "its aud is {aud}, neither a string nor a list of strings"),
    "required_claim": ("claims", "its claim {unmet} is {found}; `claims.required` says {wanted}"),
    "bad_user_id": (
        "R22",
        (
            "its claim {user_claim} is {user_id}, no usable user id (a visible string of at most 256 "
            "characters, or an integer): see the setting `claims.user_id`"
        ),
    ),
    "foreign_user_id": (
        "claims",
        "its user id {user_id} begins like those of another issuer, so it would be somebody else",
    ),
    "exp_missing": ("R19", "it has no exp"),
    "bad_exp": ("R19", "its exp is {exp}, not a time in seconds"),
    "bad_nbf": ("R20", "its nbf is {nbf}, not a time in seconds"),
    "bad_iat": ("R20", "its iat is {iat}, not a time in seconds"),
    "iat_missing": ("R21", "it has no iat, which `max_lifetime` and `max_age` need"),
    "lifetime_too_long": (
        "R21",
        "it lives from iat {iat} to exp {exp}, longer than `max_lifetime`: {max_lifetime} s",
    ),
    "not_yet_valid": (
        "R20",
        (
            "its nbf {nbf} or iat {iat} is in the future by more than the setting `leeway`: "
            "{leeway} s; are the clocks right?"
        ),
    ),
    "expired": ("R19", "it has expired: its exp is {exp}"),
    "too_old": ("R21", "its iat is {iat}, longer ago than `max_age`: {max_age} s"),
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict in lines for a terminal; nothing in them can control it."""

    accepted: bool
    lines: tuple[str, ...]


async def explain(auth: JwtAuth, token: str) -> Explanation:
    """What this verifier makes of a token. `auth` is open; the token itself is not repeated."""
    try:
        principal = await auth.judge(token)
    except NotAuthenticated as exc:
        rule, text = REASONS.get(exc.reason, ("", "it cannot be verified"))
        lines = (*_describe(token), f"refused: {exc.reason} ({rule})" if rule else "refused")
        return Explanation(False, (*lines, text.format_map(_find_facts(auth, token))))
    except AuthUnavailable as exc:
        why = "; ".join(auth.problems())
        return Explanation(False, (*_describe(token), f"not judged: {exc.reason}", why))
    return Explanation(True, (*_describe(token), *_describe_principal(principal)))


def _describe(token: str) -> tuple[str, ...]:
    header, claims = _look(token)
    described = [
        f"{name}: {show(header[name])}" for name in ("alg", "kid", "typ") if name in header
    ]
    for name in ("iss", "aud", "sub", "user_id", "jti", "scope"):
        if name in claims:
            described.append(f"{name}: {show(claims[name])}")
    times = (name for name in ("iat", "nbf", "exp") if name in claims)
    return (*described, *(f"{name}: {_show_time(claims[name])}" for name in times))


def _describe_principal(principal: Principal) -> tuple[str, ...]:
    return (
        "accepted, unless it was revoked",
        f"user id: {show(principal.id)}",
        f"scopes: {_join(principal.scopes)}",
        f"roles: {_join(principal.roles)}",
    )


def _look(token: str) -> tuple[JsonObject, JsonObject]:
    """Header and claims as the sender wrote them, as far as they can be read at all."""
    try:
        return peek(token)
    except NotAuthenticated:
        return {}, {}


def _find_facts(auth: JwtAuth, token: str) -> Mapping[str, str]:
    header, claims = _look(token)
    rules = auth.rules
    user_claim = rules.user_id_claim or ("user_id" if "user_id" in claims else "sub")
    unmet = find_unmet(claims, rules.required) or ""
    return {
        **{name: show(header.get(name)) for name in ("alg", "kid", "typ")},
        **{name: show(claims.get(name)) for name in ("iss", "aud")},
        **{name: _show_time(claims.get(name)) for name in ("exp", "nbf", "iat")},
        **_find_keys(auth, header.get("kid")),
        **_find_settings(rules),
        "types": _join(auth.types),
        "user_claim": show(user_claim),
        "user_id": show(find_claim(claims, user_claim)),
        "unmet": show(unmet),
        "found": show(find_claim(claims, unmet)),
        "wanted": show(rules.required.get(unmet)),
    }


def _find_settings(rules: ClaimRules) -> Mapping[str, str]:
    return {
        "issuer": show(rules.issuer),
        "audience": _join(rules.audience),
        "leeway": f"{rules.leeway:g}",
        "max_age": f"{rules.max_age or 0:g}",
        "max_lifetime": f"{rules.max_lifetime or 0:g}",
    }


def _find_keys(auth: JwtAuth, key_id: Any) -> Mapping[str, str]:
    keys = auth.known_keys()
    named = [key.algorithm for key in keys.keys if key.key_id == key_id]
    return {
        "algorithms": _join(named or keys.algorithms),
        "kids": _join({key.key_id for key in keys.keys if key.key_id is not None}),
    }


def show(value: Any) -> str:
    """On one line and of bounded length, whatever it contains."""
    text = ascii(value)
    return text if len(text) <= 200 else text[:200] + "..."


def _show_time(value: Any) -> str:
    match value:
        case bool():
            return show(value)
        case int() | float() if 0 <= value < LAST_SECOND:
            return f"{value} ({datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S} UTC)"
    return show(value)


def _join(words: Any) -> str:
    return ", ".join(show(word) for word in sorted(words)) or "none"
