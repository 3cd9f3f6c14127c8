"""Key material for JWT: read, judged, and bound to the one algorithm it may be used with."""

import base64
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from jwt.algorithms import get_default_algorithms

from agentflow_server.auth.published import is_published
from agentflow_server.errors import ConfigError

log = logging.getLogger(__name__)

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

ADVICE = "make a good one with `agentflow secret`"
SECRET_BYTES: Mapping[str, int] = {"HS256": 32, "HS384": 48, "HS512": 64}
CURVES: Mapping[str, type[ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}
RSA_ALGORITHMS = ("RS256", "RS384", "RS512")
ALGORITHMS = (*SECRET_BYTES, *RSA_ALGORITHMS, *CURVES)

_VERIFIERS = {name: get_default_algorithms()[name] for name in ALGORITHMS}


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key and the only algorithm it is ever used with; `key_id` is what tokens call it (`kid`)."""

    algorithm: str
    material: bytes | PublicKey = field(repr=False)
    key_id: str | None = field(default=None, repr=False)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """PyJWT compares MACs in constant time; ECDSA and RSA compare nothing secret."""
        return _VERIFIERS[self.algorithm].verify(message, self.material, signature)


def load_key(
    text: str,
    algorithm: str,
    *,
    variable: str = "JWT_SECRET_KEY",
    key_id: str | None = None,
    allow_weak_secret: bool = False,
) -> VerifyingKey:
    """The key that `text` holds: a shared secret for HS*, one PEM key for RS* and ES*.

    Raises ConfigError, which names the variable and never repeats its value.
    """
    if algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise ConfigError(f"JWT_ALGORITHM: expected one of {known}, found {algorithm!r}")
    try:
        if algorithm in SECRET_BYTES:
            secret = _read_secret(text, algorithm, allow_weak_secret)
            return VerifyingKey(algorithm, secret, key_id)
        return VerifyingKey(algorithm, _read_public_key(text, algorithm, variable), key_id)
    except BadKey as exc:
        raise ConfigError(f"{variable}: {exc}") from None


class BadKey(Exception):
    """Why a key is refused, without the key."""


def _read_secret(text: str, algorithm: str, allow_weak: bool) -> bytes:
    # The first three are mistakes rather than weaknesses: nothing allows them.
    if not text.strip():
        raise BadKey(f"it is empty; {ADVICE}")
    if kind := _recognise_key(text.strip()):
        raise BadKey(
            f"it holds {kind}, but {algorithm} wants a shared secret; for this key, give the PEM "
            "and set JWT_ALGORITHM to RS256, ES256, …"
        )
    if text != text.strip():
        raise BadKey("it begins or ends with white space")
    try:
        secret = text.encode()
    except UnicodeEncodeError:
        raise BadKey(f"it is not UTF-8 text; {ADVICE}") from None
    weakness = find_weakness(secret, algorithm)
    if weakness and not allow_weak:
        raise BadKey(f"the secret {weakness}; {ADVICE}")
    return secret


def find_weakness(secret: bytes, algorithm: str) -> str | None:
    """Why an HMAC secret is no good, without repeating it; None when nothing is wrong."""
    minimum = SECRET_BYTES[algorithm]
    if is_published(secret.decode("latin-1")):
        return "is a placeholder or a published example, known to everybody"
    if len(secret) < minimum:
        return f"has {len(secret)} bytes, {algorithm} needs at least {minimum}"
    if len(set(secret)) < 8:
        return "has fewer than 8 different bytes"
    periods = range(1, min(minimum, len(secret) // 2 + 1))
    if any(secret[period:] == secret[:-period] for period in periods):
        return f"repeats a text of fewer than {minimum} bytes"
    return None


def _recognise_key(text: str) -> str | None:
    """What `text` is, if it is an asymmetric key: whoever has the public half could sign."""
    if "-----BEGIN" in text:
        return "a PEM key"
    if text.startswith(("ssh-rsa ", "ssh-ed25519 ", "ssh-dss ", "ecdsa-sha2-")):
        return "an OpenSSH key"
    if _is_json_container(text):
        return "a JSON Web Key"
    for data in _decodings(text):
        if b"-----BEGIN" in data:
            return "an encoded PEM key"
        if _is_der_key(data):
            return "an encoded DER key"
    return None


def _is_json_container(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _decodings(text: str) -> Iterator[bytes]:
    compact = "".join(text.split())
    padded = compact + "=" * (-len(compact) % 4)
    for decode in (base64.b64decode, base64.urlsafe_b64decode):
        try:
            yield decode(padded)
        except ValueError:
            continue
    try:
        yield bytes.fromhex(compact)
    except ValueError:
        return


def _is_der_key(data: bytes) -> bool:
    readers: tuple[Callable[[], object], ...] = (
        lambda: load_der_public_key(data),
        lambda: load_der_private_key(data, None),
        lambda: x509.load_der_x509_certificate(data),
    )
    for read in readers:
        try:
            read()
        except (ValueError, UnsupportedAlgorithm):
            continue
        except TypeError:
            return True  # an encrypted key without its password is a key
        return True
    return False


def _read_public_key(text: str, algorithm: str, variable: str) -> PublicKey:
    # An environment variable often holds a PEM in one line, with `\n` written out.
    pem = text.replace("\\r", "").replace("\\n", "\n").strip()
    labels = re.findall(r"-----BEGIN ([A-Z0-9 ]*KEY)-----", pem)
    if len(labels) != 1:
        raise BadKey(f"{algorithm} wants exactly one key as PEM, found {len(labels) or 'none'}")
    is_private = labels[0].endswith("PRIVATE KEY")
    key = _load_pem(pem.encode(errors="replace"), is_private)
    if is_private:
        log.warning(
            "%s holds a private key, of which only the public half is used: better give the "
            "server the public key alone (openssl pkey -pubout)",
            variable,
        )
    return accept_public_key(key, algorithm)


def _load_pem(pem: bytes, is_private: bool) -> object:
    try:
        if is_private:
            return load_pem_private_key(pem, password=None).public_key()
        return load_pem_public_key(pem)
    except TypeError:
        raise BadKey("the PEM key is encrypted; give the server the public key") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey(
            "the PEM key cannot be read; in one line, write its line breaks as \\n"
        ) from None


def accept_public_key(key: object, algorithm: str) -> PublicKey:
    """The key, if it is good for the algorithm. Raises BadKey."""
    match key:
        case rsa.RSAPublicKey() if algorithm in RSA_ALGORITHMS:
            problem = _find_rsa_weakness(key)
        case ec.EllipticCurvePublicKey() if algorithm in CURVES:
            problem = _find_wrong_curve(key, CURVES[algorithm])
        case _:
            wanted = "an RSA" if algorithm in RSA_ALGORITHMS else "an EC"
            raise BadKey(f"{algorithm} wants {wanted} key, found {type(key).__name__}")
    if problem:
        raise BadKey(f"{problem} ({algorithm})")
    return key


def _find_wrong_curve(key: ec.EllipticCurvePublicKey, wanted: type[ec.EllipticCurve]) -> str | None:
    if isinstance(key.curve, wanted):
        return None
    return f"the key must be on the curve {wanted.name}, it is on {key.curve.name}"


def _find_rsa_weakness(key: rsa.RSAPublicKey) -> str | None:
    numbers = key.public_numbers()
    if key.key_size < 2048:
        return f"the RSA key has {key.key_size} bits, at least 2048 are needed"
    if numbers.e < 65537:
        return f"the RSA key has the public exponent {numbers.e}, at least 65537 is needed"
    if _has_roca_fingerprint(numbers.n):
        return "the RSA key was made by a generator whose keys can be factored (CVE-2017-15361)"
    return None


def _has_roca_fingerprint(modulus: int) -> bool:
    primes = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
    return all(modulus % p in {pow(65537, k, p) for k in range(p)} for p in primes)
