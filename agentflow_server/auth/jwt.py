"""Mode jwt: bearer tokens signed with a key that we trust."""

import time
from collections.abc import Callable, Sequence

from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.auth.cache import TokenCache, VerifiedToken
from agentflow_server.auth.claim_rules import ClaimRules, judge_claims
from agentflow_server.auth.key_set import KeySet, KeySource
from agentflow_server.auth.token import (
    BASIC_TYPE,
    NoKeyFits,
    is_compact,
    normal_type,
    open_token,
    parse_object,
    peek_issuer,
)
from agentflow_server.errors import AuthUnavailable, NotAuthenticated
from agentflow_server.interfaces import Authenticator
from agentflow_server.models import Principal


class JwtAuth(Authenticator):
    """Accepts a token when a key of `source` signed it and its claims follow the rules.

    Its `typ`, if it has one, is JWT or `token_type`. With an issuer in the rules it recognises
    that issuer's tokens, else every JWT but those of `foreign_issuers`, which have a method of
    their own.
    """

    name = "jwt"

    def __init__(
        self,
        source: KeySource,
        rules: ClaimRules | None = None,
        *,
        token_type: str = BASIC_TYPE,
        foreign_issuers: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.security_scheme = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        self.rules = rules or ClaimRules()
        self.source = source
        self.types = frozenset({BASIC_TYPE, normal_type(token_type)})
        self._foreign_issuers = foreign_issuers
        self._clock = clock
        self._cache = TokenCache()
        # The cache belongs to these keys: with others, everything is verified anew.
        self._keys: object = None

    async def open(self) -> None:
        await self.source.open()

    async def close(self) -> None:
        await self.source.close()

    def problems(self) -> Sequence[str]:
        return self.source.problems()

    def recognises(self, credential: HTTPAuthorizationCredentials) -> bool:
        token = credential.credentials
        if credential.scheme.lower() != "bearer" or not is_compact(token):
            return False
        if self.rules.issuer is None and not self._foreign_issuers:
            return True
        issuer = peek_issuer(token)
        if self.rules.issuer is None:
            return issuer not in self._foreign_issuers
        return issuer == self.rules.issuer

    async def authenticate(
        self,
        request: HTTPConnection,
        response: Response,
        credential: HTTPAuthorizationCredentials | None,
    ) -> Principal:
        if credential is None:
            raise NotAuthenticated(NotAuthenticated.MISSING, reason="missing", token_sent=False)
        return await self.judge(credential.credentials)

    async def judge(self, token: str) -> Principal:
        """The principal, by the newest keys that can be had.

        Raises NotAuthenticated, or AuthUnavailable when there are no keys.
        """
        now = self._clock()
        if self.source.is_overdue(now):
            await self.source.renew(now)
        # Inline: it takes less than handing it to a thread would.
        try:
            return self.verify(token)
        except NoKeyFits:
            if not await self.source.renew(now):
                raise
        return self.verify(token)

    def verify(self, token: str) -> Principal:
        """The principal with the token's whole payload as claims, by the keys we have now.

        Raises NotAuthenticated, or AuthUnavailable when there are no keys; nothing else.
        """
        try:
            return self._find_verified(token).make_principal()
        except (NotAuthenticated, AuthUnavailable):
            raise
        except Exception as exc:
            # The libraries beneath raise far outside their own error trees on hostile input
            # (TypeError, AttributeError, UnicodeError, …); whatever it is, it is no identity.
            raise NotAuthenticated(reason="unverifiable") from exc

    def known_keys(self) -> KeySet:
        """Raises AuthUnavailable."""
        return self.source.current(self._clock())

    def _find_verified(self, token: str) -> VerifiedToken:
        now = self._clock()
        keys = self.source.current(now)
        if keys is not self._keys:
            self._cache, self._keys = TokenCache(), keys
        verified = self._cache.find(token, now)
        if verified is None:
            payload = open_token(token, keys, types=self.types)
            claims = parse_object(payload, reason="bad_payload")
            verdict = judge_claims(claims, self.rules, now)
            verified = VerifiedToken(
                payload, verdict.caller, verdict.valid_from, verdict.valid_until
            )
            self._cache.remember(token, verified, now)
        return verified
