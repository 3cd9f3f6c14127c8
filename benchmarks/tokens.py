"""Tokens to measure with: good ones of each algorithm, and bad ones that cost the most to refuse."""

import base64
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agentflow_server.auth.token import MAX_TOKEN

MANY_OBJECTS = ('{"alg":"HS256","x":[', "{},", "{}]}")
MANY_NUMBERS = ('{"alg":"HS256","x":[', "0,", "0]}")
LONG_NUMBER = ('{"alg":"HS256","x":', "1", "}")
LONG_TEXT = ('{"alg":"HS256","x":"', "x", '"}')
DEEP = ('{"alg":"HS256","x":', "[", "}")
NESTED = ('{"alg":"HS256","x":[', "[" * 100 + "]" * 100 + ",", "0]}")


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs for one user; `public` is what the server is given."""

    algorithm: str
    public: str = field(repr=False)
    private: Any = field(repr=False)

    def sign(self, **claims: Any) -> str:
        """A token like no other."""
        own = {"user_id": "alice", "roles": ["reader"], "jti": secrets.token_hex(8)}
        payload = {**own, "iat": int(time.time()), "exp": int(time.time()) + 3600, **claims}
        return jwt.encode(payload, self.private, algorithm=self.algorithm)

    def sign_bytes(self, payload: bytes) -> str:
        return jwt.api_jws.encode(payload, self.private, algorithm=self.algorithm)


def make_signers() -> list[Signer]:
    secret = secrets.token_urlsafe(48)
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ec_key = ec.generate_private_key(ec.SECP256R1())
    return [
        Signer("HS256", secret, secret),
        Signer("RS256", _to_pem(rsa_key.public_key()), rsa_key),
        Signer("ES256", _to_pem(ec_key.public_key()), ec_key),
    ]


def make_bad_tokens(signers: Sequence[Signer]) -> Mapping[str, str]:
    """What it is → a token that is refused. All but one are as long as may be, or short."""
    strangers = make_signers()
    hs256 = signers[0]
    return {
        "no token at all": "nonsense",
        "16 kB without a dot": "A" * MAX_TOKEN,
        "16 kB of dots": "." * MAX_TOKEN,
        "20 kB": hs256.sign(x="x" * 15_000),
        **{f"forged {one.algorithm}": one.sign() for one in strangers},
        **{f"forged {one.algorithm}, 16 kB": _long_forgery(one) for one in strangers},
        **dict(_bad_headers()),
        **dict(_bad_payloads(hs256)),
        "expired, well signed": hs256.sign(exp=int(time.time()) - 60),
    }


def _long_forgery(stranger: Signer) -> str:
    return stranger.sign_bytes(_fill(*LONG_TEXT, size=11_800))


def _bad_headers() -> Iterator[tuple[str, str]]:
    """Nobody needs a key for these: a header is read before the signature is checked."""
    rest = f".{_encode(b'{}')}.{_encode(bytes(32))}"
    size = (MAX_TOKEN - len(rest)) * 3 // 4
    for what, parts in (
        ("header with thousands of objects", MANY_OBJECTS),
        ("header with thousands of numbers", MANY_NUMBERS),
        ("header with an endless number", LONG_NUMBER),
        ("header 12,000 levels deep", DEEP),
        ("header 100 levels deep, often", NESTED),
    ):
        yield what, _encode(_fill(*parts, size=size)) + rest


def _bad_payloads(signer: Signer) -> Iterator[tuple[str, str]]:
    """Well signed: what somebody can do who has a say in the claims of his own token."""
    for what, parts in (
        ("signed payload with thousands of objects", MANY_OBJECTS),
        ("signed payload with an endless number", LONG_NUMBER),
        ("signed payload 12,000 levels deep", DEEP),
    ):
        yield what, signer.sign_bytes(_fill(*parts, size=12_100))


def _fill(begin: str, item: str, end: str, *, size: int) -> bytes:
    """As many items as fit into `size` bytes."""
    return (begin + item * ((size - len(begin) - len(end)) // len(item)) + end).encode()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _to_pem(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def key_settings(signers: Sequence[Signer]) -> list[dict[str, str]]:
    """The `keys` of agentflow.json; the keys themselves are in `key_environment`."""
    return [
        {"kid": one.algorithm, "algorithm": one.algorithm, "secret_env": f"BENCH_{one.algorithm}"}
        for one in signers
    ]


def key_environment(signers: Sequence[Signer]) -> dict[str, str]:
    return {f"BENCH_{one.algorithm}": one.public for one in signers}
