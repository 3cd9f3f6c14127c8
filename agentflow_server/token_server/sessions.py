"""Logins that last: families of refresh tokens, each good for one use (RFC 9700 section 4.14.2)."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agentflow_server.config import TokenServerConfig
from agentflow_server.errors import NotFound
from agentflow_server.interfaces import CredentialStore, GrantStore, UserStore
from agentflow_server.models import RefreshToken, Revocation, User
from agentflow_server.token_server.access_tokens import Session
from agentflow_server.token_server.errors import OAuthError
from agentflow_server.token_server.opaque import hash_made, hash_opaque

log = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""How long a token that was just replaced may come again: two requests of one client in parallel."""
REMEMBERED_SECONDS = 3600.0 + 300.0
"""As long as an access token of an ended session may live, and clocks may differ."""


def refuse(reason: str) -> OAuthError:
    """One answer for whatever is wrong with a grant."""
    return OAuthError("invalid_grant", "The grant is not valid, or not any more", reason=reason)


class Sessions:
    def __init__(
        self,
        config: TokenServerConfig,
        grants: GrantStore,
        users: UserStore,
        credentials: CredentialStore,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._grants = grants
        self._users = users
        self._credentials = credentials
        self._clock = clock

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    async def start(
        self,
        session: Session,
        *,
        user_id: str,
        client_id: str,
        scopes: tuple[str, ...],
        refresh_token: str,
    ) -> None:
        """Keep its first refresh token. Raises OAuthError when it was ended already."""
        now = self.now()
        first = RefreshToken(
            token_hash=hash_made(refresh_token),
            family_id=session.session_id,
            client_id=client_id,
            user_id=user_id,
            scopes=scopes,
            authenticated_at=session.authenticated_at,
            issued_at=now,
            expires_at=now + timedelta(seconds=self._config.refresh_token_lifetime),
        )
        if not await self._grants.add_refresh_token(first):
            raise refuse("session_ended")

    async def get_good(self, refresh_token: str, client_id: str) -> tuple[RefreshToken, User]:
        """A token that may be replaced, and its user as he is now.

        Raises OAuthError. Whoever brings one that was replaced has stolen it, or it was stolen
        from him: nobody knows, and the session ends for both.
        """
        stored = await self.find(refresh_token)
        if stored is None:
            raise refuse("unknown_refresh_token")
        if stored.client_id != client_id:
            raise refuse("foreign_refresh_token")
        now = self.now()
        if stored.replaced_at is not None:
            if abs((now - stored.replaced_at).total_seconds()) < GRACE_SECONDS:
                raise refuse("refresh_token_replaced")
            log.warning("a refresh token came twice: session %s is ended", stored.family_id)
            await self.end(stored.family_id)
            raise refuse("refresh_token_reused")
        if stored.expires_at <= now:
            raise refuse("refresh_token_expired")
        return stored, await self.get_user(stored.user_id, stored.family_id)

    async def replace(self, stored: RefreshToken, refresh_token: str) -> None:
        """Of several at the same time, one succeeds. Raises OAuthError."""
        successor = replace(stored, token_hash=hash_made(refresh_token), issued_at=self.now())
        if not await self._grants.replace_refresh_token(stored.token_hash, successor):
            raise refuse("refresh_token_replaced")

    async def find(self, refresh_token: str) -> RefreshToken | None:
        token_hash = hash_opaque(refresh_token)
        return None if token_hash is None else await self._grants.find_refresh_token(token_hash)

    async def get_user(self, user_id: str, session_id: str) -> User:
        """As he is now. Raises OAuthError, and ends his session, when he is not to go on."""
        try:
            user = await self._users.get_user(user_id)
        except NotFound:
            user = None
        if user is None or user.disabled_at is not None:
            await self.end(session_id)
            raise refuse("no_such_user")
        return user

    async def confirm(self, user: User, session_id: str) -> None:
        """For the end of a login, after all that it grants is made. Raises OAuthError.

        Who was disabled meanwhile, or whose password was changed, had his grants revoked before
        this one was there; and no clock is asked which of the two came first.
        """
        now = await self.get_user(user.user_id, session_id)
        before, after = user.password_changed_at, now.password_changed_at
        if before != after:
            await self.end(session_id)
            raise refuse("password_changed")

    async def end(self, session_id: str) -> None:
        """For ever: its refresh tokens at once, its access tokens within a minute."""
        await self._grants.revoke_family(session_id)
        now = self._clock()
        await self._credentials.add_revocation(
            Revocation(
                at=now,
                expires_at=now + REMEMBERED_SECONDS,
                token_id=session_id,
                issuer=self._config.issuer,
            )
        )
