"""Why a credential is refused, for the operator: which rule and setting. Never sent to a client."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.auth.api_key import ApiKeyAuth, split_api_key
from agentflow_server.auth.claim_rules import LAST_SECOND, ClaimRules, find_unmet
from agentflow_server.auth.claims import find_claim
from agentflow_server.auth.introspection import IntrospectionAuth
from agentflow_server.auth.jwt import JwtAuth
from agentflow_server.auth.revocation import Revocations
from agentflow_server.auth.token import MAX_TOKEN, peek
from agentflow_server.errors import AuthUnavailable, NotAuthenticated
from agentflow_server.interfaces import Authenticator, CredentialStore
from agentflow_server.models import ApiKey, JsonObject, Principal, Revocation

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


_ANSWER_REASONS: Mapping[str, tuple[str, str]] = {
    "inactive": ("R57", "the introspection endpoint says that it is not active, or not known"),
}
_KEY_REASONS: Mapping[str, tuple[str, str]] = {
    "not_an_api_key": ("R60", "it does not begin with afk_, and nothing but API keys is accepted"),
    "malformed_api_key": ("R60", "it is not as API keys are written, or was mistyped"),
    "unknown_api_key": ("R60", "the database has no key of that id"),
    "wrong_secret": ("R60", "there is a key of that id, and this is not its secret"),
    "expired": ("R61", "the key has expired"),
    "revoked": ("R61", "the key was revoked"),
}
_UNAVAILABLE: Mapping[str, str] = {
    "introspection_failed": "the introspection endpoint did not answer as it should: see above",
    "introspection_unreadable": "the introspection endpoint's answer is not RFC 7662's: see above",
    "credential_store_unavailable": "the database cannot be read",
    "revocations_unavailable": "the database cannot be read",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict in lines for a terminal; nothing in them can control it."""

    accepted: bool
    lines: tuple[str, ...]


# No method of ours looks at the request.
_NO_REQUEST = HTTPConnection({"type": "http", "headers": []})


async def explain(
    auth: Authenticator, token: str, *, credentials: CredentialStore | None = None
) -> Explanation:
    """What this method makes of a token. `auth` is open; the token itself is not repeated.

    `credentials` are the server's: revocations are looked up there.
    """
    described = await _describe_credential(auth, token, credentials)
    sent = HTTPAuthorizationCredentials(scheme="Bearer", credentials=token)
    try:
        principal = await auth.authenticate(_NO_REQUEST, Response(), sent)
        revoked = credentials and await _find_revocations(credentials, principal)
    except NotAuthenticated as exc:
        return Explanation(False, (*described, *_explain_refusal(auth, token, exc.reason)))
    except AuthUnavailable as exc:
        why = (*auth.problems(), *filter(None, [_UNAVAILABLE.get(exc.reason)]))
        return Explanation(False, (*described, f"not judged: {exc.reason}", "; ".join(why)))
    if revoked:
        return Explanation(False, (*described, "refused: revoked (R68)", *revoked))
    verdict = "accepted, unless it was revoked" if credentials is None else "accepted"
    return Explanation(True, (*described, verdict, *_describe_principal(principal)))


def _explain_refusal(auth: Authenticator, token: str, reason: str) -> tuple[str, str]:
    reasons = _KEY_REASONS if isinstance(auth, ApiKeyAuth) else {**REASONS, **_ANSWER_REASONS}
    rule, text = reasons.get(reason, ("", "it cannot be verified"))
    verdict = f"refused: {reason} ({rule})" if rule else "refused"
    return verdict, text.format_map(_find_facts(auth, token))


async def _describe_credential(
    auth: Authenticator, token: str, credentials: CredentialStore | None
) -> Sequence[str]:
    if not isinstance(auth, ApiKeyAuth):
        return _describe(token)
    parts = split_api_key(token)
    found = credentials and parts and await credentials.find_api_key(parts[0])
    return _describe_key(found[0]) if found else ()


def _describe_key(key: ApiKey) -> Sequence[str]:
    times = {"created": key.created_at, "expires": key.expires_at, "revoked": key.revoked_at}
    return (
        f"key id: {show(key.key_id)}",
        f"made for: {show(key.user_id)}",
        *(f"{name}: {_show_moment(time)}" for name, time in times.items() if time is not None),
    )


async def _find_revocations(credentials: CredentialStore, principal: Principal) -> Sequence[str]:
    """Those that make the server refuse the caller. Raises AuthUnavailable."""
    revocations = Revocations(credentials)
    await revocations.open()
    try:
        await revocations.check(principal)
    except NotAuthenticated:
        listed = await credentials.list_revocations(time.time())
        return [_describe_revocation(one) for one in listed if _is_about(one, principal)]
    finally:
        await revocations.close()
    return ()


def _is_about(entry: Revocation, principal: Principal) -> bool:
    if entry.user_id is not None:
        return entry.user_id == principal.id
    return entry.token_id == principal.token_id and entry.issuer in {None, principal.issuer}


def _describe_revocation(entry: Revocation) -> str:
    until = f"until {_show_moment(datetime.fromtimestamp(entry.expires_at, UTC))}"
    if entry.user_id is None:
        return f"the token {show(entry.token_id)} is refused, {until}"
    before = _show_moment(datetime.fromtimestamp(entry.at, UTC))
    return f"all of {show(entry.user_id)} that was issued before {before} is refused, {until}"


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


class _SettingsAlone(dict[str, str]):
    """For texts about claims that are in an answer which nobody has shown us."""

    def __missing__(self, name: str) -> str:
        return "(in the endpoint's answer)"


def _find_facts(auth: Authenticator, token: str) -> Mapping[str, str]:
    match auth:
        case JwtAuth():
            return _find_token_facts(auth, token)
        case IntrospectionAuth():
            return _SettingsAlone(_find_settings(auth.rules))
    return {}


def _find_token_facts(auth: JwtAuth, token: str) -> Mapping[str, str]:
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
            return f"{value} ({_show_moment(datetime.fromtimestamp(value, UTC))})"
    return show(value)


def _show_moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _join(words: Any) -> str:
    return ", ".join(show(word) for word in sorted(words)) or "none"
