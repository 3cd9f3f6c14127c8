"""Tokens that were found good a moment ago, so that the next request need not verify them again."""

import hashlib
from dataclasses import dataclass, field

from pydantic_core import from_json

from agentflow_server.models import Principal

LIFETIME = 60.0
MAX_CACHED_TOKEN = 4096
"""Longer tokens are verified every time, so that the cache stays within 40 MB."""


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What verification found; good while `valid_from <= now < valid_until`."""

    payload: bytes = field(repr=False)
    caller: Principal
    valid_from: float
    valid_until: float

    def make_principal(self) -> Principal:
        """The caller with claims of his own, the JSON object in `payload`."""
        caller = self.caller
        claims = from_json(self.payload)
        claims["user_id"] = caller.id
        # Field by field and by place: `dataclasses.replace` takes as long as the rest of a hit.
        return Principal(
            caller.id,
            claims,
            caller.scopes,
            caller.roles,
            caller.method,
            caller.issuer,
            caller.token_id,
            caller.issued_at,
            caller.expires_at,
        )


class TokenCache:
    """Verified tokens by SHA-256 of their text, each for a minute at most.

    One cache belongs to one set of keys, or to one endpoint with its credentials, and to one set
    of rules: a token is never looked up under another one. Failures are never kept, and the
    token's own times are compared again on each hit.
    """

    def __init__(self, max_entries: int = 10_000, *, lifetime: float = LIFETIME) -> None:
        self._max_entries = max_entries
        self._lifetime = lifetime
        self._entries: dict[bytes, tuple[VerifiedToken, float]] = {}

    def find(self, token: str, now: float) -> VerifiedToken | None:
        if len(token) > MAX_CACHED_TOKEN:
            return None
        digest = _digest(token)
        entry = self._entries.get(digest)
        if entry is None:
            return None
        verified, forget_at = entry
        if verified.valid_from <= now < min(verified.valid_until, forget_at):
            return verified
        del self._entries[digest]
        return None

    def remember(self, token: str, verified: VerifiedToken, now: float) -> None:
        if len(token) > MAX_CACHED_TOKEN:
            return
        if len(self._entries) >= self._max_entries:
            del self._entries[next(iter(self._entries))]
        self._entries[_digest(token)] = (verified, now + self._lifetime)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
