"""Mode introspection: the authorization server is asked about each token (RFC 7662)."""

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials
from pydantic_core import to_json

from agentflow_server import strict_json
from agentflow_server.auth.cache import LIFETIME, TokenCache, VerifiedToken
from agentflow_server.auth.claim_rules import ClaimRules, judge_claims
from agentflow_server.auth.client_secrets import SecretPlace, present_client
from agentflow_server.auth.fetching import Fetcher, FetchFailed
from agentflow_server.auth.token import MAX_DEPTH, MAX_TOKEN, is_compact
from agentflow_server.errors import AuthUnavailable, NotAuthenticated
from agentflow_server.interfaces import Authenticator
from agentflow_server.models import JsonObject, Principal

log = logging.getLogger(__name__)

MAX_ANSWER = 64 * 1024
_VISIBLE = re.compile(r"[\x21-\x7e]+")
Recognise = Callable[[HTTPAuthorizationCredentials], bool]


@dataclass(frozen=True, slots=True)
class IntrospectionClient:
    """The endpoint, and who we are there."""

    url: str
    client_id: str
    client_secret: str = field(repr=False)
    client_auth: SecretPlace = "client_secret_basic"

    def write_request(self, token: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Form and headers; the token is in the form alone."""
        form, headers = present_client(self.client_id, self.client_secret, self.client_auth)
        return {"token": token, "token_type_hint": "access_token", **form}, headers


class IntrospectionAuth(Authenticator):
    """Believes the endpoint's `"active": true`, and checks the claims that come with it.

    A good answer is believed for `cache_seconds`, a minute at most, and never beyond the token's
    end; a bad one is never kept. A silent or broken endpoint means 503. With `leaves_jwts` tokens
    that have the form of a JWT belong to other methods, and so does what `is_foreign` says.
    """

    name = "introspection"

    def __init__(
        self,
        client: IntrospectionClient,
        rules: ClaimRules | None = None,
        *,
        cache_seconds: float = LIFETIME,
        leaves_jwts: bool = False,
        is_foreign: Recognise = lambda credential: False,
        fetcher: Fetcher | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.security_scheme = {"type": "http", "scheme": "bearer", "bearerFormat": "opaque"}
        self.rules = replace(rules or ClaimRules(), method="introspection", expiry_required=False)
        self._client = client
        self._leaves_jwts = leaves_jwts
        self._is_foreign = is_foreign
        self._fetcher = fetcher or Fetcher(max_bytes=MAX_ANSWER)
        self._clock = clock
        self._cache = TokenCache(lifetime=min(cache_seconds, LIFETIME))
        self._asking: dict[bytes, asyncio.Task[JsonObject]] = {}

    def recognises(self, credential: HTTPAuthorizationCredentials) -> bool:
        if credential.scheme.lower() != "bearer" or self._is_foreign(credential):
            return False
        return not (self._leaves_jwts and is_compact(credential.credentials))

    async def close(self) -> None:
        for task in tuple(self._asking.values()):
            task.cancel()
        await self._fetcher.close()

    async def authenticate(
        self,
        request: HTTPConnection,
        response: Response,
        credential: HTTPAuthorizationCredentials | None,
    ) -> Principal:
        if credential is None:
            raise NotAuthenticated(NotAuthenticated.MISSING, reason="missing", token_sent=False)
        token = credential.credentials
        if len(token) > MAX_TOKEN:
            raise NotAuthenticated(reason="too_long")
        if not _VISIBLE.fullmatch(token):
            raise NotAuthenticated(reason="malformed")
        verified = self._cache.find(token, self._clock())
        if verified is None:
            verified = await self._verify(token)
        return verified.make_principal()

    async def _verify(self, token: str) -> VerifiedToken:
        claims = await self._ask_once(token)
        now = self._clock()
        verdict = judge_claims(claims, self.rules, now)
        verified = VerifiedToken(
            to_json(claims), verdict.caller, verdict.valid_from, verdict.valid_until
        )
        self._cache.remember(token, verified, now)
        return verified

    async def _ask_once(self, token: str) -> JsonObject:
        """Requests that come with the same token at the same time share one question."""
        digest = hashlib.sha256(token.encode()).digest()
        task = self._asking.get(digest)
        if task is None:
            task = self._asking[digest] = asyncio.create_task(self._ask(token))
            task.add_done_callback(partial(self._forget, digest))
        # Not awaited itself: a request that is cancelled must not cancel it for the others.
        await asyncio.wait({task})
        if task.cancelled():
            raise AuthUnavailable(reason="closing")
        return task.result()

    def _forget(self, digest: bytes, task: asyncio.Task[JsonObject]) -> None:
        del self._asking[digest]
        if not task.cancelled():
            task.exception()  # seen, also when everybody who waited has gone

    async def _ask(self, token: str) -> JsonObject:
        """The claims of an active token. Raises NotAuthenticated, AuthUnavailable."""
        form, headers = self._client.write_request(token)
        try:
            data = await self._fetcher.post(self._client.url, form, headers=headers)
            answer = strict_json.parse(data, max_depth=MAX_DEPTH)
        except FetchFailed as exc:
            hint = "; are client_id and client_secret right?" if exc.status in {400, 401} else ""
            log.error("introspection: %s%s", exc, hint)  # noqa: TRY400 - no traceback needed
            raise AuthUnavailable(reason="introspection_failed") from None
        except ValueError as exc:
            log.error("introspection: the answer is %s", exc)  # noqa: TRY400 - as above
            raise AuthUnavailable(reason="introspection_unreadable") from None
        match answer:
            case {"active": True}:
                return {name: value for name, value in answer.items() if name != "active"}
            case {"active": False}:
                raise NotAuthenticated(reason="inactive")
        log.error('introspection: the answer has no "active" that is true or false')
        raise AuthUnavailable(reason="introspection_unreadable")
