"""Keys, tokens written byte by byte, and a clock that stands still."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import get_default_algorithms

from agentflow_server.auth.jwt import ClaimRules, JwtAuth
from agentflow_server.auth.keys import load_key

NOW = 1_800_000_000.0
CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


@dataclass
class Clock:
    """Time passes when a test says so."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Pair:
    """A key as its owner has it: `text` is what goes into JWT_SECRET_KEY."""

    algorithm: str
    signing: Any
    text: str
    private_text: str

    def sign(self, message: bytes, algorithm: str | None = None) -> bytes:
        return get_default_algorithms()[algorithm or self.algorithm].sign(message, self.signing)


@cache
def make_pair(algorithm: str) -> Pair:
    if algorithm.startswith("HS"):
        secret = "Zm9v-Yn2qRk8wTq0xLh3vBc6dPs1uEj9gXa4oMi7yKf5tWr-QzHlNbVe-J2sD8pGc"
        return Pair(algorithm, secret.encode(), secret, secret)
    if algorithm.startswith("RS"):
        key: Any = rsa.generate_private_key(65537, 2048)
    else:
        key = ec.generate_private_key(CURVES[algorithm]())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(algorithm, key, public.decode(), private.decode())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Desk:
    """One JwtAuth, its key and its clock."""

    pair: Pair
    rules: ClaimRules = field(default_factory=ClaimRules)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        key = load_key(self.pair.text, self.pair.algorithm)
        self.auth = JwtAuth(key, self.rules, clock=self.clock)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good claims with changes; `...` removes one."""
        claims = {"user_id": "alice", "exp": int(NOW) + 3600, **changes}
        return {name: value for name, value in claims.items() if value is not ...}

    def write(
        self,
        claims: dict[str, Any] | None = None,
        *,
        header: dict[str, Any] | None = None,
        raw_header: bytes | None = None,
        raw_payload: bytes | None = None,
    ) -> str:
        """A signed token of exactly these bytes."""
        if raw_header is None:
            members = {"alg": self.pair.algorithm, "typ": "JWT", **(header or {})}
            kept = {name: value for name, value in members.items() if value is not ...}
            raw_header = json.dumps(kept).encode()
        if raw_payload is None:
            raw_payload = json.dumps(self.claims() if claims is None else claims).encode()
        message = f"{b64(raw_header)}.{b64(raw_payload)}"
        return f"{message}.{b64(self.pair.sign(message.encode()))}"


@pytest.fixture
def pair() -> Callable[[str], Pair]:
    return make_pair


@pytest.fixture
def desk() -> Desk:
    return Desk(make_pair("HS256"))


@pytest.fixture
def open_desk() -> Callable[..., Desk]:
    def open_desk(algorithm: str = "HS256", **rules: Any) -> Desk:
        return Desk(make_pair(algorithm), ClaimRules(**rules))

    return open_desk


@pytest.fixture
def encode() -> Callable[[bytes], str]:
    return b64
