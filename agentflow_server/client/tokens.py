"""An access token, how long it lasts, and how it is written down."""

import base64
import re
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from agentflow_server.client.errors import LoginFailed

_HEADER_TEXT = re.compile(r"[\x21-\x7e]+")


def now() -> float:
    """Seconds since 1970 by this machine's clock."""
    return time.time()


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and what came with it.

    `expires_at` is a time by this machine's clock, None if nobody knows. `source` is the login it
    belongs to: it is never used for another. Raises LoginFailed when it cannot be sent.
    """

    access_token: str = field(repr=False)
    expires_at: float | None = None
    lifetime: float | None = None
    refresh_token: str | None = field(default=None, repr=False)
    source: str = ""

    def __post_init__(self) -> None:
        if not _HEADER_TEXT.fullmatch(self.access_token):
            raise LoginFailed("the access token has characters that no header can carry")

    @classmethod
    def of(cls, text: str) -> "Token":
        """A token from elsewhere; if it is a JWT, it says itself when it expires."""
        return cls(text, expires_at=_read_times(text).get("exp"))

    @classmethod
    def issued_now(
        cls, text: str, *, expires_in: float | None, refresh_token: str | None, source: str
    ) -> "Token":
        """A token that a server has just issued. It lasts from now on, whatever the server's clock
        says: one of the two may be wrong by minutes."""
        if expires_in is None:
            times = _read_times(text)
            expires_in = times["exp"] - times["iat"] if {"exp", "iat"} <= times.keys() else None
        expires_at = None if expires_in is None else now() + expires_in
        return cls(text, expires_at, expires_in, refresh_token, source)

    @classmethod
    def loads(cls, text: str | bytes) -> "Token":
        """Raises ValueError, which does not show the text."""
        try:
            return _TOKEN.validate_json(text)
        except ValidationError:
            raise ValueError("holds no token of ours") from None

    def dumps(self) -> str:
        return to_json(asdict(self)).decode()

    def is_expired(self) -> bool:
        return self.expires_at is not None and now() >= self.expires_at

    def is_fresh(self, leeway: float) -> bool:
        """It lasts `leeway` seconds more, or half of its life if that is shorter."""
        if self.expires_at is None:
            return True
        margin = leeway if self.lifetime is None else min(leeway, self.lifetime / 2)
        return now() < self.expires_at - margin


_TOKEN = TypeAdapter(Token)


def _read_times(text: str) -> dict[str, float]:
    """`exp` and `iat` of a JWT, unverified: they are only good for knowing when to renew it."""
    try:
        payload = text.split(".")[1]
        claims: Any = from_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        found = {name: claims.get(name) for name in ("exp", "iat")}
    except (ValueError, IndexError, AttributeError):
        return {}
    return {name: float(at) for name, at in found.items() if type(at) in (int, float)}
