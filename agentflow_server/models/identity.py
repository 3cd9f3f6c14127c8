"""Who asks, with what credential, and what is written down about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from agentflow_server.models.frozen import Frozen

ANONYMOUS = ""
"""The reserved owner of everything done without authentication: no credential can claim it."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller. `id` owns what he makes; `claims` go into the agent's config.

    `method` is how he was recognised (`none`, `jwt`, `introspection`, `api_key`, `custom`), `issuer`
    who vouches for him. `token_id` names the credential (a `jti`, a key's id), `issued_at` and
    `expires_at` are its times in seconds since 1970: revocation and long connections need them.
    """

    id: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    method: str = "none"
    issuer: str | None = None
    token_id: str | None = None
    issued_at: float | None = None
    expires_at: float | None = None

    @property
    def is_anonymous(self) -> bool:
        return self.id == ANONYMOUS


class ApiKey(Frozen):
    """An API key as operators see it; the secret itself was shown once and is not stored."""

    key_id: str
    user_id: str
    name: str | None
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tokens that are refused although they verify, from `at` on (seconds since 1970).

    With `token_id`: this one token (of `issuer`, if given). With `user_id` (a Principal's id):
    every token of his that was issued before `at`. Kept until `expires_at`.
    """

    at: float
    expires_at: float
    token_id: str | None = None
    issuer: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """So many hits in so many seconds."""

    amount: int
    seconds: int


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One security decision. `time` in seconds since 1970; None and empty fields are left out.

    Never holds a token, a secret or a message; `user_id` only when it was verified.
    """

    time: float
    action: str
    result: Literal["success", "failure", "error"]
    reason: str | None = None
    user_id: str | None = None
    method: str | None = None
    issuer: str | None = None
    token_id: str | None = None
    algorithm: str | None = None
    key_id: str | None = None
    client: str | None = None
    route: str | None = None
    request_id: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)
