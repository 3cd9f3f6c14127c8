"""Mode jwt: bearer tokens signed with the one configured key."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials
from pydantic_core import from_json

from agentflow_server.auth.cache import TokenCache, VerifiedToken
from agentflow_server.auth.claims import read_user_id
from agentflow_server.auth.keys import VerifyingKey
from agentflow_server.auth.token import open_token, parse_object
from agentflow_server.errors import NotAuthenticated
from agentflow_server.interfaces import Authenticator
from agentflow_server.models import JsonObject, Principal

log = logging.getLogger(__name__)

LAST_SECOND = 1e11
"""Later times are milliseconds, or a trick."""


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What the claims of a good token look like.

    `leeway` (seconds) forgives a sender's clock that is ahead of ours: it applies to `nbf` and
    `iat`, never to `exp`. Without `user_id_claim` the caller is `user_id`, else `sub`.
    """

    issuer: str | None = None
    audience: frozenset[str] = frozenset()
    user_id_claim: str | None = None
    leeway: float = 5.0


class JwtAuth(Authenticator):
    """Accepts a token when the configured key signed it and its claims follow the rules."""

    def __init__(
        self,
        key: VerifyingKey,
        rules: ClaimRules | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.security_scheme = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        self._key = key
        self._rules = rules or ClaimRules()
        self._clock = clock
        self._cache = TokenCache()

    async def authenticate(
        self,
        request: HTTPConnection,
        response: Response,
        credential: HTTPAuthorizationCredentials | None,
    ) -> Principal:
        if credential is None:
            raise NotAuthenticated(NotAuthenticated.MISSING, reason="missing", token_sent=False)
        # Inline: it takes less than handing it to a thread would.
        return self.verify(credential.credentials)

    def verify(self, token: str) -> Principal:
        """The principal with the token's whole payload as claims.

        Raises NotAuthenticated and nothing else.
        """
        try:
            verified = self._find_verified(token)
            claims = from_json(verified.payload)
        except NotAuthenticated:
            raise
        except Exception as exc:
            # The libraries beneath raise far outside their own error trees on hostile input
            # (TypeError, AttributeError, UnicodeError, …); whatever it is, it is no identity.
            raise NotAuthenticated(reason="unverifiable") from exc
        return Principal(verified.user_id, {**claims, "user_id": verified.user_id})

    def _find_verified(self, token: str) -> VerifiedToken:
        now = self._clock()
        verified = self._cache.find(token, now)
        if verified is None:
            verified = self._verify(token, now)
            self._cache.remember(token, verified, now)
        return verified

    def _verify(self, token: str, now: float) -> VerifiedToken:
        payload = open_token(token, self._key)
        claims = parse_object(payload, reason="bad_payload")
        _check_origin(claims, self._rules)
        verified = VerifiedToken(
            payload,
            _find_user_id(claims, self._rules.user_id_claim),
            valid_from=_find_start(claims) - self._rules.leeway,
            valid_until=_find_end(claims),
        )
        if now < verified.valid_from:
            raise NotAuthenticated(reason="not_yet_valid")
        # Last, so that "expired" is only ever said of a token that was good once.
        if now >= verified.valid_until:
            raise NotAuthenticated(NotAuthenticated.EXPIRED, reason="expired")
        return verified


def _check_origin(claims: JsonObject, rules: ClaimRules) -> None:
    if not isinstance(claims.get("jti", ""), str):
        raise NotAuthenticated(reason="bad_jti")
    if rules.issuer is not None and claims.get("iss") != rules.issuer:
        raise NotAuthenticated(reason="issuer_mismatch")
    if rules.audience:
        _check_audience(claims.get("aud", []), rules.audience)
    elif "aud" in claims:
        log.warning(
            "refused a token that is meant for a certain audience (`aud`): to accept it, name "
            "that audience in JWT_AUDIENCE"
        )
        raise NotAuthenticated(reason="audience_not_configured")


def _check_audience(found: Any, accepted: frozenset[str]) -> None:
    members = found if isinstance(found, list) else [found]
    if not all(isinstance(member, str) for member in members):
        raise NotAuthenticated(reason="bad_aud")
    if accepted.isdisjoint(members):
        raise NotAuthenticated(reason="audience_mismatch")


def _find_user_id(claims: JsonObject, configured: str | None) -> str:
    name = configured or ("user_id" if "user_id" in claims else "sub")
    try:
        return read_user_id(claims.get(name))
    except ValueError:
        raise NotAuthenticated(reason="bad_user_id") from None


def _find_start(claims: JsonObject) -> float:
    times = [_read_time(claims, name) for name in ("nbf", "iat") if name in claims]
    return max(times, default=0.0)


def _find_end(claims: JsonObject) -> float:
    if "exp" not in claims:
        raise NotAuthenticated(reason="exp_missing")
    return _read_time(claims, "exp")


def _read_time(claims: JsonObject, name: str) -> float:
    match claims[name]:
        case bool():
            pass
        case int() | float() as seconds if 0 <= seconds < LAST_SECOND:
            return seconds
    raise NotAuthenticated(reason=f"bad_{name}")
