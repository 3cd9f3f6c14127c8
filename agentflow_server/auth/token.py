"""The compact form of a signed token, read strictly before any cryptography sees it (RFC 7515)."""

import base64
import re
from typing import Any

from agentflow_server import strict_json
from agentflow_server.auth.keys import VerifyingKey
from agentflow_server.errors import NotAuthenticated

MAX_TOKEN = 16 * 1024
MAX_DEPTH = 20

# The payload may be empty here: RFC 7515 allows it, and no JSON reader will.
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]+)")
_TYPES = frozenset({"jwt", "application/jwt"})

# Members that change how a token is read, or that bring a key of the sender's choice.
_REFUSED = frozenset({"crit", "b64", "zip", "cty", "jku", "x5u", "jwk", "x5c"})


def open_token(token: str, key: VerifyingKey) -> bytes:
    """The payload of a token that `key` signed. Raises NotAuthenticated."""
    if len(token) > MAX_TOKEN:
        raise NotAuthenticated(reason="too_long")
    found = _COMPACT.fullmatch(token)
    if found is None:
        raise NotAuthenticated(reason="malformed")
    header, payload, signature = (_decode(segment) for segment in found.groups())
    _check_header(parse_object(header, reason="bad_header"), key.algorithm)
    if not key.verify(token[: found.end(2)].encode(), signature):
        raise NotAuthenticated(reason="bad_signature")
    return payload


def parse_object(data: bytes, *, reason: str) -> dict[str, Any]:
    """The JSON object in `data`. Raises NotAuthenticated with `reason`."""
    try:
        value = strict_json.parse(data, max_depth=MAX_DEPTH)
    except ValueError:
        raise NotAuthenticated(reason=reason) from None
    if not isinstance(value, dict):
        raise NotAuthenticated(reason=reason)
    return value


def _decode(segment: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise NotAuthenticated(reason="malformed") from None
    # Bits after the last byte are ignored by decoders: one token must not have several spellings.
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment.encode():
        raise NotAuthenticated(reason="malformed")
    return data


def _check_header(header: dict[str, Any], algorithm: str) -> None:
    if header.get("alg") != algorithm:
        raise NotAuthenticated(reason="alg_not_allowed")
    if not _REFUSED.isdisjoint(header):
        raise NotAuthenticated(reason="header_not_supported")
    match header:
        case {"kid": str()}:
            pass
        case {"kid": _}:
            raise NotAuthenticated(reason="bad_kid")
    match header:
        case {"typ": str(typ)} if typ.lower() in _TYPES:
            pass
        case {"typ": _}:
            raise NotAuthenticated(reason="typ_not_allowed")
