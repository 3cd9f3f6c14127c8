"""OAuth 2.0 access tokens, checked by the server that issued them.

agentflow.json, with one of the two URLs:

    "auth": {"method": "custom", "path": "auth.oauth:OAuth2Auth",
             "options": {"introspection_url": "https://login.example.com/introspect",
                         "audience": "my-agent", "scopes": ["agent"]}}

    "options": {"userinfo_url": "https://login.example.com/userinfo"}

.env, for introspection (RFC 7662): OAUTH_CLIENT_ID and OAUTH_CLIENT_SECRET. Prefer introspection:
`/userinfo` also answers for tokens that the same server issued to other applications.

A good answer is kept for `cache_seconds` (at most 60): for so long a revoked token still works.
"""

import asyncio
import hashlib
import logging
import os
import re
import time
from typing import Any
from urllib.parse import quote_plus

import httpx2
import jwt
from fastapi import HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server import BaseAuth

log = logging.getLogger(__name__)
MAX_CACHED = 10_000
SAFE_URL = re.compile(r"https://[^/]|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/|$)")
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750


class OAuth2Auth(BaseAuth):
    """Asks the authorization server; while that cannot answer, nobody new gets in (503)."""

    def __init__(
        self,
        *,
        userinfo_url: str | None = None,
        introspection_url: str | None = None,
        audience: str | None = None,
        scopes: list[str] | None = None,
        cache_seconds: float = 60,
        timeout: float = 4,
    ) -> None:
        """`audience` and `scopes` are what introspection must report. Raises ValueError."""
        url = introspection_url or userinfo_url
        if not url or (introspection_url and userinfo_url):
            raise ValueError("set one of the options introspection_url and userinfo_url")
        if not SAFE_URL.match(url):
            raise ValueError("the OAuth server needs an https:// address")
        if userinfo_url and (audience or scopes):
            raise ValueError("audience and scopes need introspection_url")
        if not 0 <= cache_seconds <= 60:
            raise ValueError("cache_seconds must be between 0 and 60")
        self._url, self._introspects = url, introspection_url is not None
        self._login = read_client_login() if self._introspects else None
        self._audience, self._scopes = audience, frozenset(scopes or [])
        self._cache_seconds, self._timeout = cache_seconds, timeout
        self._cache: dict[bytes, tuple[float, dict[str, Any]]] = {}
        self._pool: tuple[object, httpx2.AsyncClient] | None = None

    async def authenticate(  # type: ignore[override]  # the server awaits it
        self, res: Response, credential: HTTPAuthorizationCredentials
    ) -> dict[str, Any] | None:
        token = credential.credentials
        key = hashlib.sha256(token.encode()).digest()
        until, user = self._cache.get(key, (0.0, {}))
        if until <= time.time():
            answer = await self._ask(token)
            ends = read_exp(answer if self._introspects else peek_claims(token))
            if not self._accepts(answer) or ends <= time.time():
                raise HTTPException(401, "Invalid OAuth token")
            profile = {name: answer.get(name) for name in ("email", "name", "picture")}
            user = {"user_id": answer["sub"], **profile}
            self._remember(key, min(ends, time.time() + self._cache_seconds), user)
        return user.copy()

    async def _ask(self, token: str) -> dict[str, Any]:
        if not TOKEN.fullmatch(token):
            raise HTTPException(401, "Invalid OAuth token")
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._send(token)
            if not self._introspects and response.status_code in (400, 401, 403):
                raise HTTPException(401, "Invalid OAuth token")
            answer = response.json() if response.status_code == 200 else None
        except (httpx2.HTTPError, TimeoutError, ValueError) as exc:
            raise unavailable(type(exc).__name__) from exc
        if not isinstance(answer, dict):  # redirects come here too: they are never followed
            raise unavailable(f"status {response.status_code}, not the JSON object expected")
        return answer

    async def _send(self, token: str) -> httpx2.Response:
        loop = asyncio.get_running_loop()
        if self._pool is None or self._pool[0] is not loop:  # connections belong to one loop
            self._pool = (loop, httpx2.AsyncClient(timeout=self._timeout, auth=self._login))
        client = self._pool[1]
        if self._introspects:
            form = {"token": token, "token_type_hint": "access_token"}
            return await client.post(self._url, data=form)
        return await client.get(self._url, headers={"Authorization": f"Bearer {token}"})

    def _accepts(self, answer: dict[str, Any]) -> bool:
        if not isinstance(answer.get("sub"), str) or not answer["sub"]:
            return False
        if not self._introspects:
            return True
        aud = answer.get("aud")
        return (
            answer.get("active") is True
            and self._audience in (None, *(aud if isinstance(aud, list) else [aud]))
            and self._scopes <= set(str(answer.get("scope", "")).split())
        )

    def _remember(self, key: bytes, until: float, user: dict[str, Any]) -> None:
        self._cache.pop(key, None)
        while len(self._cache) >= MAX_CACHED:
            del self._cache[next(iter(self._cache))]  # the oldest
        self._cache[key] = (until, user)


def read_client_login() -> httpx2.BasicAuth:
    """Raises ValueError. The encoding is RFC 6749's, section 2.3.1."""
    values = [os.environ.get(name, "") for name in ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET")]
    if not all(values):
        raise ValueError("introspection needs OAUTH_CLIENT_ID and OAUTH_CLIENT_SECRET in .env")
    return httpx2.BasicAuth(*map(quote_plus, values))


def peek_claims(token: str) -> dict[str, Any]:
    """Unverified claims, if it is a JWT: they only ever make us forget an answer earlier."""
    try:
        return dict(jwt.decode(token, options={"verify_signature": False}))
    except jwt.PyJWTError:
        return {}


def read_exp(claims: dict[str, Any]) -> float:
    exp = claims.get("exp", float("inf"))
    return exp if isinstance(exp, int | float) and not isinstance(exp, bool) else 0.0


def unavailable(reason: str) -> HTTPException:
    log.warning("the OAuth server is unavailable: %s", reason)
    return HTTPException(503, "The OAuth server is unavailable", headers={"Retry-After": "5"})
