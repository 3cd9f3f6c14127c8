"""JSON Web Key Sets (RFC 7517), read strictly: only keys that verify signatures come out."""

import base64
import logging
from collections.abc import Collection, Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agentflow_server import strict_json
from agentflow_server.auth.key_set import KeySet
from agentflow_server.auth.keys import (
    CURVES,
    RSA_ALGORITHMS,
    BadKey,
    VerifyingKey,
    accept_public_key,
)

log = logging.getLogger(__name__)

MAX_KEYS = 100
MAX_DEPTH = 20
ASYMMETRIC = (*RSA_ALGORITHMS, *CURVES)

_CURVE_NAMES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


def parse_jwks(data: bytes, algorithms: Collection[str] = ASYMMETRIC) -> KeySet:
    """The usable keys of a set; a shared secret (`oct`) is never one, wherever it stands.

    Keys that are not for signatures, too weak, or for other algorithms are left out. Raises
    ValueError, with a text that repeats nothing secret, when the set itself is no good.
    """
    accepted = frozenset(algorithms).intersection(ASYMMETRIC)
    document = strict_json.parse(data, max_depth=MAX_DEPTH)
    match document:
        case {"keys": list(members)}:
            pass
        case _:
            raise ValueError('not a JSON Web Key Set: expected {"keys": […]}')
    if len(members) > MAX_KEYS:
        raise ValueError(f"the set has {len(members)} keys, at most {MAX_KEYS} are read")
    jwks = [member for member in members if isinstance(member, dict)]
    names = [jwk["kid"] for jwk in jwks if isinstance(jwk.get("kid"), str)]
    if len(set(names)) < len(names):
        raise ValueError("two keys of the set have the same kid")
    return KeySet((key for jwk in jwks for key in _read_jwk(jwk, accepted)), algorithms=accepted)


def _read_jwk(jwk: dict[str, Any], accepted: frozenset[str]) -> Iterator[VerifyingKey]:
    """One key for each algorithm that it may be used with: none for most that are refused."""
    try:
        _check_purpose(jwk)
        for algorithm in _find_algorithms(jwk, accepted):
            key = accept_public_key(_read_public_numbers(jwk, algorithm), algorithm)
            yield VerifyingKey(algorithm, key, jwk.get("kid"))
    except BadKey as exc:
        log.info("left a key out of a JSON Web Key Set: %s", exc)


def _check_purpose(jwk: dict[str, Any]) -> None:
    if not isinstance(jwk.get("kid", ""), str):
        raise BadKey("its kid is not a string")
    if jwk.get("use", "sig") != "sig":
        raise BadKey("its use is not sig")
    operations = jwk.get("key_ops", ["verify"])
    if not (isinstance(operations, list) and "verify" in operations):
        raise BadKey("its key_ops do not name verify")
    if "d" in jwk:
        log.warning("a JSON Web Key Set holds a private key, of which only the public half is used")


def _find_algorithms(jwk: dict[str, Any], accepted: frozenset[str]) -> list[str]:
    match jwk:
        case {"kty": "RSA"}:
            possible: tuple[str, ...] = RSA_ALGORITHMS
        case {"kty": "EC", "crv": crv}:
            possible = tuple(name for name, curve in _CURVE_NAMES.items() if curve == crv)
        case _:
            raise BadKey("it is neither an RSA nor an EC key")
    usable = [name for name in possible if name in accepted and jwk.get("alg", name) == name]
    if not usable:
        raise BadKey("it is not for one of the accepted algorithms")
    return usable


def _read_public_numbers(jwk: dict[str, Any], algorithm: str) -> object:
    try:
        if algorithm in RSA_ALGORITHMS:
            numbers = rsa.RSAPublicNumbers(_read_number(jwk, "e"), _read_number(jwk, "n"))
            return numbers.public_key()
        point = _read_number(jwk, "x"), _read_number(jwk, "y")
        return ec.EllipticCurvePublicNumbers(*point, CURVES[algorithm]()).public_key()
    except ValueError:
        # Such as a point that is not on its curve.
        raise BadKey("its numbers are no key") from None


def _read_number(jwk: dict[str, Any], name: str) -> int:
    text = jwk.get(name)
    if not isinstance(text, str):
        raise BadKey(f"it has no {name}")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise BadKey(f"its {name} is not base64url") from None
    return int.from_bytes(data)
