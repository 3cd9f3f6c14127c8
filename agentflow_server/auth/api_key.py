"""Mode api_key: keys that operators make, hashed in the database and looked up for each request."""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import string
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.auth.claims import read_user_id
from agentflow_server.errors import AuthUnavailable, NotAuthenticated, StoreUnavailable
from agentflow_server.interfaces import Authenticator, CredentialStore
from agentflow_server.models import ApiKey, Principal

log = logging.getLogger(__name__)

PREFIX = "afk_"
HEADER = "X-API-Key"
HEADER_SCHEME = "ApiKey"
"""The `scheme` of a credential that came in the header `X-API-Key`."""

USES_WRITTEN_EVERY = 60.0
"""Seconds between two notes of when keys were last used."""

_LETTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LETTERS = string.digits + string.ascii_lowercase
_ID_LENGTH = 12
_SECRET_LENGTH = 43  # of 62 letters: 256 bits
_CHECKSUM_LENGTH = 6  # of 62 letters: enough for 32 bits
_KEY = re.compile(
    rf"({PREFIX}([0-9a-z]{{{_ID_LENGTH}}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}}))"
    rf"([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})"
)
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")  # RFC 6749 section 3.3
_NO_HASH = bytes(32)
"""Compared with when there is no such key, so that this takes as long as a wrong secret."""
_LONG_AGO = datetime.fromtimestamp(0, UTC)


def make_api_key(
    user_id: str,
    *,
    name: str | None = None,
    scopes: Iterable[str] = (),
    created_at: datetime,
    expires_at: datetime | None = None,
) -> tuple[str, ApiKey, bytes]:
    """A new key: its text, to be shown once, and what is stored of it. Raises ValueError."""
    scopes = sorted(set(scopes))
    if not all(map(_SCOPE.fullmatch, scopes)):
        raise ValueError(
            'a scope is 1 to 128 characters of printable ASCII without spaces, " and \\'
        )
    key_id, secret = _draw(_ID_LETTERS, _ID_LENGTH), _draw(_LETTERS, _SECRET_LENGTH)
    key = ApiKey(
        key_id=key_id,
        user_id=read_user_id(user_id),
        name=name,
        scopes=scopes,
        created_at=created_at,
        expires_at=expires_at,
    )
    text = f"{PREFIX}{key_id}_{secret}"
    return text + _sum_up(text), key, hash_secret(secret)


def _draw(letters: str, length: int) -> str:
    return "".join(secrets.choice(letters) for _ in range(length))


def _sum_up(text: str) -> str:
    """A checksum: typing errors, and words that only look like keys, are known without a look-up."""
    number, letters = zlib.crc32(text.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_LETTERS))
        letters = _LETTERS[digit] + letters
    return letters


def hash_secret(secret: str) -> bytes:
    # A slow hash would protect a secret that can be guessed. Nobody guesses 256 random bits, and
    # this one is computed for each request.
    return hashlib.sha256(secret.encode()).digest()


def split_api_key(text: str) -> tuple[str, str] | None:
    """The id and the secret; None when it is no key of ours or was mistyped."""
    match = _KEY.fullmatch(text)
    if match is None or _sum_up(match[1]) != match[4]:
        return None
    return match[2], match[3]


class ApiKeyAuth(Authenticator):
    """Accepts a key that is stored, neither expired nor revoked.

    Its row is read for each request, so that a revocation made anywhere counts from the next one
    on. With `header`, a key may also come as `X-API-Key`: a credential with the scheme `ApiKey`.
    """

    name = "api_key"

    def __init__(
        self,
        store: CredentialStore,
        *,
        header: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.security_scheme = {"type": "http", "scheme": "bearer", "bearerFormat": "API key"}
        self.header_scheme = {"type": "apiKey", "in": "header", "name": HEADER} if header else None
        self._store = store
        self._clock = clock
        self._used: dict[str, float] = {}
        self._writing: asyncio.Task[None] | None = None

    @property
    def security_schemes(self) -> Mapping[str, Mapping[str, Any]]:
        header = {} if self.header_scheme is None else {f"{self.name}_header": self.header_scheme}
        return {**super().security_schemes, **header}

    def recognises(self, credential: HTTPAuthorizationCredentials) -> bool:
        if credential.scheme == HEADER_SCHEME:
            return self.header_scheme is not None
        return credential.credentials.startswith(PREFIX)

    async def open(self) -> None:
        self._writing = asyncio.create_task(self._write_uses_regularly())

    async def close(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait({self._writing})
            self._writing = None
        await self._write_uses()

    async def authenticate(
        self,
        request: HTTPConnection,
        response: Response,
        credential: HTTPAuthorizationCredentials | None,
    ) -> Principal:
        if credential is None:
            raise NotAuthenticated(NotAuthenticated.MISSING, reason="missing", token_sent=False)
        if not self.recognises(credential):
            raise NotAuthenticated(reason="not_an_api_key")
        key = await self._find_key(credential.credentials)
        now = self._clock()
        if key.revoked_at is not None:
            raise NotAuthenticated(reason="revoked")
        if key.expires_at is not None and now >= key.expires_at.timestamp():
            raise NotAuthenticated(NotAuthenticated.EXPIRED, reason="expired")
        self._used[key.key_id] = now
        return _make_principal(key)

    async def _find_key(self, text: str) -> ApiKey:
        """The key whose secret this is, whatever has become of it."""
        parts = split_api_key(text)
        if parts is None:
            raise NotAuthenticated(reason="malformed_api_key")
        key_id, secret = parts
        try:
            found = await self._store.find_api_key(key_id)
        except StoreUnavailable as exc:
            raise AuthUnavailable(reason="credential_store_unavailable") from exc
        # To read a row takes as long as to make this up.
        key, secret_hash = found or (_make_nobody(key_id), _NO_HASH)
        is_right = hmac.compare_digest(hash_secret(secret), secret_hash)
        if found is None:
            raise NotAuthenticated(reason="unknown_api_key")
        if not is_right:
            raise NotAuthenticated(reason="wrong_secret")
        return key

    async def _write_uses_regularly(self) -> None:
        while True:
            await asyncio.sleep(USES_WRITTEN_EVERY)
            await self._write_uses()

    async def _write_uses(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._store.touch_api_keys(used)
        except Exception:
            # Background work: when a key was last used is worth no request and no shutdown.
            log.exception("when %d API keys were last used could not be written", len(used))
            self._used = used | self._used


def _make_nobody(key_id: str) -> ApiKey:
    return ApiKey(
        key_id=key_id,
        user_id="nobody",
        name=None,
        scopes=[],
        created_at=_LONG_AGO,
        expires_at=None,
        revoked_at=None,
        last_used_at=None,
    )


def _make_principal(key: ApiKey) -> Principal:
    return Principal(
        key.user_id,
        claims={"user_id": key.user_id, "api_key_id": key.key_id, "scopes": list(key.scopes)},
        scopes=frozenset(key.scopes),
        method="api_key",
        token_id=key.key_id,
        issued_at=key.created_at.timestamp(),
        expires_at=None if key.expires_at is None else key.expires_at.timestamp(),
    )
