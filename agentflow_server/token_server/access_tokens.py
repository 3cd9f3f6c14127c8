"""Access tokens as RFC 9068 has them, which the server's own door takes like any other issuer's."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from uuid_utils import uuid7

from agentflow_server.auth.own_tokens import CLIENT_PREFIX
from agentflow_server.config import TokenServerConfig
from agentflow_server.models import JsonObject, User
from agentflow_server.token_server.forms import TokenAnswer
from agentflow_server.token_server.keys import Keys
from agentflow_server.token_server.permissions import Permissions
from agentflow_server.users.making import RESERVED_CLAIMS


@dataclass(frozen=True, slots=True)
class Session:
    """One login of a user: all tokens that come from it can be ended together."""

    session_id: str
    authenticated_at: datetime


def find_own_claims(user: User) -> JsonObject:
    """What operators say of him besides: what has a meaning in a token is never among it."""
    return {name: value for name, value in user.claims.items() if name not in RESERVED_CLAIMS}


class AccessTokens:
    def __init__(
        self, config: TokenServerConfig, keys: Keys, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._config = config
        self._keys = keys
        self._clock = clock

    async def issue(
        self,
        user: User,
        client_id: str,
        session: Session,
        permissions: Permissions,
        *,
        refresh_token: str | None,
    ) -> TokenAnswer:
        """For a user. Raises AuthUnavailable."""
        claims = {
            **find_own_claims(user),
            "username": user.username,
            "auth_time": int(session.authenticated_at.timestamp()),
            "sid": session.session_id,
        }
        if permissions.roles:
            claims["roles"] = list(permissions.roles)
        return await self._issue(
            user.user_id, client_id, permissions.scopes, claims, refresh_token=refresh_token
        )

    async def issue_to_client(self, client_id: str, scopes: tuple[str, ...]) -> TokenAnswer:
        """For a client that acts for itself. Raises AuthUnavailable."""
        return await self._issue(
            f"{CLIENT_PREFIX}{client_id}", client_id, scopes, {}, refresh_token=None
        )

    async def _issue(
        self,
        subject: str,
        client_id: str,
        scopes: tuple[str, ...],
        claims: dict[str, Any],
        *,
        refresh_token: str | None,
    ) -> TokenAnswer:
        now, token_id, scope = self._clock(), str(uuid7()), " ".join(scopes)
        lifetime = self._config.access_token_lifetime
        access_token = await self._keys.sign(
            {
                **claims,
                "iss": self._config.issuer,
                "aud": self._config.audience,
                "sub": subject,
                "user_id": subject,
                "client_id": client_id,
                # To the millisecond: whoever logs in right after a revocation is not refused.
                "iat": math.floor(now * 1000) / 1000,
                "exp": int(now) + lifetime,
                "jti": token_id,
                "scope": scope,
            }
        )
        return TokenAnswer(
            access_token=access_token,
            expires_in=lifetime,
            scope=scope,
            refresh_token=refresh_token,
            user_id=subject,
            client_id=client_id,
            token_id=token_id,
        )
