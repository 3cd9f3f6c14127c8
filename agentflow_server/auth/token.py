"""The compact form of a signed token, read strictly before any cryptography sees it (RFC 7515)."""

import base64
import re
from typing import Any

from pydantic_core import from_json

from agentflow_server import strict_json
from agentflow_server.auth.key_set import KeySet
from agentflow_server.errors import NotAuthenticated
from agentflow_server.models import JsonObject

MAX_TOKEN = 16 * 1024
MAX_HEADER = 2 * 1024
MAX_DEPTH = 20
BASIC_TYPE = "jwt"

# The payload may be empty here: RFC 7515 allows it, and no JSON reader will.
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]+)")

# Members that change how a token is read, or that bring a key of the sender's choice.
_REFUSED = frozenset({"crit", "b64", "zip", "cty", "jku", "x5u", "jwk", "x5c"})


class NoKeyFits(NotAuthenticated):
    """No key we have now has made the signature; one that the issuer has just made might have."""


def normal_type(typ: str) -> str:
    """Media types are written in any case, and `application/` may be left out (RFC 7515 4.1.9)."""
    return typ.lower().removeprefix("application/")


def open_token(
    token: str, keys: KeySet, *, types: frozenset[str] = frozenset({BASIC_TYPE})
) -> bytes:
    """The payload of a token that one of `keys` signed, of one of the (normal) `types`.

    Raises NotAuthenticated; NoKeyFits when other keys might give another verdict.
    """
    header, payload, message, signature = _split(token)
    algorithm, key_id = _check_header(_read_header(header), keys, types)
    candidates = keys.find(key_id, algorithm)
    for key in candidates:
        if key.verify(message, signature):
            return payload
    if keys.is_name(key_id):
        raise NotAuthenticated(reason="bad_signature" if candidates else "alg_not_allowed")
    raise NoKeyFits(reason="bad_signature" if candidates else "unknown_key")


def is_compact(token: str) -> bool:
    """Whether the credential has the form of a signed token at all."""
    return len(token) <= MAX_TOKEN and _COMPACT.fullmatch(token) is not None


def peek_header(token: str) -> JsonObject:
    """As the sender wrote it: **nothing here is verified**. Raises NotAuthenticated."""
    return _read_header(_split(token)[0])


def peek(token: str) -> tuple[JsonObject, JsonObject]:
    """Header and payload as the sender wrote them: **nothing here is verified**.

    Good for saying what was refused. Raises NotAuthenticated.
    """
    header, payload, _, _ = _split(token)
    return _read_header(header), parse_object(payload, reason="bad_payload")


def peek_issuer(token: str) -> str | None:
    """Whose token it says it is, **unverified**: good for choosing who is to verify it.

    Quick rather than strict: whoever is chosen reads the token strictly.
    """
    try:
        claims = from_json(_split(token)[1])
    except (NotAuthenticated, ValueError):
        return None
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    return issuer if isinstance(issuer, str) else None


def parse_object(data: bytes, *, reason: str) -> JsonObject:
    """The JSON object in `data`. Raises NotAuthenticated with `reason`."""
    try:
        value = strict_json.parse(data, max_depth=MAX_DEPTH)
    except ValueError:
        raise NotAuthenticated(reason=reason) from None
    if not isinstance(value, dict):
        raise NotAuthenticated(reason=reason)
    return value


def _read_header(header: bytes) -> JsonObject:
    # A header is small. One that is not could cost milliseconds before any key is asked.
    if len(header) > MAX_HEADER:
        raise NotAuthenticated(reason="bad_header")
    return parse_object(header, reason="bad_header")


def _split(token: str) -> tuple[bytes, bytes, bytes, bytes]:
    """Header, payload, what is signed, and the signature."""
    if len(token) > MAX_TOKEN:
        raise NotAuthenticated(reason="too_long")
    found = _COMPACT.fullmatch(token)
    if found is None:
        raise NotAuthenticated(reason="malformed")
    header, payload, signature = (_decode(segment) for segment in found.groups())
    return header, payload, token[: found.end(2)].encode(), signature


def _decode(segment: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise NotAuthenticated(reason="malformed") from None
    # Bits after the last byte are ignored by decoders: one token must not have several spellings.
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment.encode():
        raise NotAuthenticated(reason="malformed")
    return data


def _check_header(
    header: dict[str, Any], keys: KeySet, types: frozenset[str]
) -> tuple[str, str | None]:
    """The algorithm and the name of the key."""
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in keys.algorithms:
        raise NotAuthenticated(reason="alg_not_allowed")
    if not _REFUSED.isdisjoint(header):
        raise NotAuthenticated(reason="header_not_supported")
    if not isinstance(key_id, str) and "kid" in header:
        raise NotAuthenticated(reason="bad_kid")
    match header:
        case {"typ": str(typ)} if normal_type(typ) in types:
            pass
        case {"typ": _}:
            raise NotAuthenticated(reason="typ_not_allowed")
    return algorithm, key_id
