"""Keys that sign access tokens: made, chosen, and shown to the world."""

import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm

from agentflow_server.auth.keys import BadKey, VerifyingKey
from agentflow_server.auth.own_tokens import TOKEN_TYPE
from agentflow_server.auth.stored_keys import StoredKeys, find_signing_key, read_private_key
from agentflow_server.auth.token import open_token, parse_object
from agentflow_server.errors import AuthUnavailable
from agentflow_server.interfaces import GrantStore
from agentflow_server.models import JsonObject, SigningKey

ALGORITHM = "ES256"


def make_signing_key(now: datetime, *, signs_from: datetime | None = None) -> SigningKey:
    """A new one; by default it signs at once."""
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    return SigningKey(
        kid=secrets.token_urlsafe(12),
        algorithm=ALGORITHM,
        private_pem=pem.decode(),
        created_at=now,
        signs_from=signs_from or now,
    )


class Keys:
    """Signs with the newest key, and verifies with all."""

    def __init__(self, store: GrantStore, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._stored = StoredKeys(store, clock=clock)
        self._signer: tuple[SigningKey, ec.EllipticCurvePrivateKey] | None = None

    async def open(self) -> None:
        """Make a key where there is none at all."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        await self._store.ensure_signing_key(make_signing_key(now))
        await self._stored.open()

    async def close(self) -> None:
        await self._stored.close()

    async def sign(self, claims: Mapping[str, Any]) -> str:
        """Raises AuthUnavailable."""
        now = self._clock()
        key = find_signing_key(await self._stored.list_keys(now), now)
        if key is None:
            raise AuthUnavailable(reason="no_signing_key")
        headers = {"typ": TOKEN_TYPE, "kid": key.kid}
        return jwt.encode(dict(claims), self._load(key), algorithm=key.algorithm, headers=headers)

    async def read(self, token: str) -> JsonObject:
        """The claims of a token of ours, which may have expired.

        Raises NotAuthenticated, AuthUnavailable.
        """
        now = self._clock()
        await self._stored.list_keys(now)
        payload = open_token(token, self._stored.current(now), types=frozenset({TOKEN_TYPE}))
        return parse_object(payload, reason="bad_payload")

    async def jwks(self) -> JsonObject:
        """Raises AuthUnavailable."""
        now = self._clock()
        await self._stored.list_keys(now)
        return {"keys": [_show(key) for key in self._stored.current(now).keys]}

    def _load(self, key: SigningKey) -> ec.EllipticCurvePrivateKey:
        if self._signer is None or self._signer[0] != key:
            try:
                self._signer = key, read_private_key(key)
            except BadKey as exc:
                raise AuthUnavailable(reason="unusable_signing_key") from exc
        return self._signer[1]


def _show(key: VerifyingKey) -> JsonObject:
    assert isinstance(key.material, ec.EllipticCurvePublicKey)  # noqa: S101 – as we make them
    public = ECAlgorithm.to_jwk(key.material, as_dict=True)
    return {**public, "kid": key.key_id, "use": "sig", "alg": key.algorithm}
