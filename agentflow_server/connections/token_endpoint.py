"""Asks an authorization server for a token, and believes nothing it says unseen (RFC 6749)."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from agentflow_server import strict_json
from agentflow_server.auth.client_secrets import present_client
from agentflow_server.auth.discovery import fetch_metadata, find_endpoint
from agentflow_server.auth.fetching import Fetcher, FetchFailed
from agentflow_server.config import ClientCredentialsConnection

log = logging.getLogger(__name__)

TIMEOUT = 10.0
MAX_ANSWER = 64 * 1024
MAX_DEPTH = 10
DEFAULT_LIFETIME = 300.0
"""Seconds, for a token of which nobody says how long it lives."""
MAX_LIFETIME = 86_400.0

_VISIBLE = re.compile(r"[\x21-\x7e]{1,16384}")
_REFUSALS = frozenset({400, 401, 403})


class TokenRefused(Exception):
    """Why there is no token, as a reason of ConnectionUnavailable."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class GrantedToken:
    """`asked_at` and `expires_at` by the clock of whoever asked."""

    text: str = field(repr=False)
    asked_at: float
    expires_at: float


class TokenEndpoint:
    """One client at one authorization server."""

    def __init__(
        self,
        name: str,
        config: ClientCredentialsConnection,
        *,
        clock: Callable[[], float],
        fetcher: Fetcher | None = None,
    ) -> None:
        self._name = name
        self._config = config
        self._clock = clock
        self._fetcher = fetcher or Fetcher(timeout=TIMEOUT, max_bytes=MAX_ANSWER)
        self._found: str | None = None

    async def close(self) -> None:
        self._found = None
        await self._fetcher.close()

    async def ask(self, scopes: Sequence[str]) -> GrantedToken:
        """Raises TokenRefused."""
        config, asked_at = self._config, self._clock()
        login, headers = present_client(
            config.client_id,
            config.client_secret.get_secret_value(),
            config.token_endpoint_auth_method,
        )
        try:
            url = await self._find_url()
            answer = await self._fetcher.post(url, {**self._form(scopes), **login}, headers=headers)
        except FetchFailed as exc:
            self._found = None
            is_refused = exc.status in _REFUSALS
            hint = "; are client_id, client_secret and scopes right?" if is_refused else ""
            # What breaks HTTP is repeated there, and may be our own credential.
            is_garbled = isinstance(exc.__cause__, httpx2.ProtocolError)
            why = "the authorization server does not speak HTTP" if is_garbled else exc
            log.warning("connection %s: %s%s", self._name, why, hint)
            raise TokenRefused("refused" if is_refused else "unreachable") from None
        try:
            text, lifetime = _read(strict_json.parse(answer, max_depth=MAX_DEPTH))
        except ValueError as exc:
            log.warning("connection %s: the answer of %s %s", self._name, url, exc)
            raise TokenRefused("unreadable") from None
        return GrantedToken(text, asked_at, asked_at + lifetime)

    async def _find_url(self) -> str:
        issuer = self._config.issuer
        if issuer is None:
            return str(self._config.token_url)
        if self._found is None:
            metadata = await fetch_metadata(self._fetcher, issuer)
            self._found = find_endpoint(metadata, issuer, "token_endpoint")
        return self._found

    def _form(self, scopes: Sequence[str]) -> Mapping[str, str]:
        config = self._config
        fields = {
            **{name: value.get_secret_value() for name, value in config.extra.items()},
            "grant_type": "client_credentials",
            "scope": " ".join(scopes),
            "audience": config.audience,
            "resource": config.resource,
        }
        return {name: value for name, value in fields.items() if value}


def _read(answer: Any) -> tuple[str, float]:
    """The token, and for how many seconds. Raises ValueError, without a word of the answer."""
    match answer:
        case {"access_token": str(text), "token_type": str(kind)}:
            pass
        case _:
            raise ValueError("has no access_token and token_type")
    if kind.lower() != "bearer":
        raise ValueError("has another token_type than Bearer")
    if not _VISIBLE.fullmatch(text):
        raise ValueError("has an access_token that no header can hold")
    return text, _read_lifetime(answer.get("expires_in"))


def _read_lifetime(value: Any) -> float:
    match value:
        case None:
            return DEFAULT_LIFETIME
        case bool():
            pass
        case int() | float() if value >= 0:
            return min(float(value), MAX_LIFETIME)
        case str() if value.isascii() and value.isdigit() and len(value) < 20:  # some send text
            return min(float(value), MAX_LIFETIME)
    raise ValueError("has an expires_in that is no number of seconds")
