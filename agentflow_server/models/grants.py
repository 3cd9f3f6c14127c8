"""What the token server has granted: keys that sign, codes, refresh tokens."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key; it verifies from the moment it is stored until it is removed.

    The newest whose `signs_from` has come signs. That may be later than `created_at`, so that
    everybody who keeps the published keys for a while knows it before the first token.
    """

    kid: str
    algorithm: str
    private_pem: str = field(repr=False)
    created_at: datetime
    signs_from: datetime
    retires_at: datetime | None = None
    """From then on no token that it signed can be valid any more: it may be removed."""


@dataclass(frozen=True, slots=True)
class AuthorizationCode:
    """RFC 6749 4.1.2 with the challenge of RFC 7636 (S256). The code itself is not kept."""

    code_hash: bytes = field(repr=False)
    """SHA-256."""
    client_id: str
    redirect_uri: str
    code_challenge: str
    user_id: str
    scopes: tuple[str, ...]
    authenticated_at: datetime
    expires_at: datetime
    family_id: str
    """Of the refresh tokens that come from it."""


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """One of a family that began with one login; each is good for one use."""

    token_hash: bytes = field(repr=False)
    """SHA-256."""
    family_id: str
    client_id: str
    user_id: str
    scopes: tuple[str, ...]
    authenticated_at: datetime
    issued_at: datetime
    expires_at: datetime
    """The same for the whole family: nobody stays logged in by coming back."""
    replaced_at: datetime | None = None
