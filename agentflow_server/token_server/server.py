"""The token server: what may be asked of it, and who answers."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentflow_server.config import TokenServerConfig
from agentflow_server.errors import Forbidden, NotAuthenticated, NotFound
from agentflow_server.interfaces import CredentialStore, GrantStore, RateLimiter, UserStore
from agentflow_server.models import JsonObject, Principal, Quota, Revocation, is_user_id
from agentflow_server.token_server.access_tokens import AccessTokens, find_own_claims
from agentflow_server.token_server.authorizing import Authorization
from agentflow_server.token_server.clients import Clients
from agentflow_server.token_server.describing import describe_server
from agentflow_server.token_server.forms import (
    AuthorizationRequest,
    ClientLogin,
    LoggedIn,
    TokenAnswer,
)
from agentflow_server.token_server.granting import Granting
from agentflow_server.token_server.keys import Keys
from agentflow_server.token_server.logins import LoginLimits, Logins
from agentflow_server.token_server.permissions import ScopeRules
from agentflow_server.token_server.sessions import REMEMBERED_SECONDS, Sessions

if TYPE_CHECKING:
    # It needs an extra, and this module must not.
    from agentflow_server.users.passwords import Passwords


@dataclass(frozen=True, slots=True)
class TokenStores:
    """Where users are, what was granted to them, and what was taken back."""

    users: UserStore
    grants: GrantStore
    credentials: CredentialStore


class TokenServer:
    """Opened after the store. Any method raises StoreUnavailable, which is a 503.

    `issuer` is what `iss` says; `address` is where a request came from (client_address). The
    `limiter` counts failures, `per_address` is how many of them an address may have.
    """

    def __init__(
        self,
        config: TokenServerConfig,
        stores: TokenStores,
        *,
        passwords: "Passwords",
        limiter: RateLimiter,
        per_address: Quota,
        scopes: ScopeRules | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.issuer = config.issuer
        self._stores = stores
        self._clock = clock
        self._scopes = scopes or ScopeRules()
        self._keys = Keys(stores.grants, clock=clock)
        self._clients = Clients(config.clients)
        limits = LoginLimits(limiter, per_address)
        logins = Logins(stores.users, passwords, limits, clock=clock)
        self._sessions = Sessions(
            config, stores.grants, stores.users, stores.credentials, clock=clock
        )
        self._authorization = Authorization(
            config.issuer, self._clients, logins, self._sessions, stores.grants
        )
        self._granting = Granting(
            self._clients,
            logins,
            self._sessions,
            AccessTokens(config, self._keys, clock=clock),
            grants=stores.grants,
            scopes=self._scopes,
            password_grant=config.password_grant,
        )

    async def open(self) -> None:
        """The first server of all makes a key to sign with."""
        await self._keys.open()

    async def close(self) -> None:
        await self._keys.close()

    async def grant(
        self, form: Mapping[str, str], client: ClientLogin | None, *, address: str
    ) -> TokenAnswer:
        """Without a client it is the built-in public one, `agentflow`.

        Raises OAuthError, AuthUnavailable.
        """
        return await self._granting.grant(form, client, address=address)

    async def revoke(self, token: str, hint: str | None, client: ClientLogin | None) -> bool:
        """RFC 7009: a refresh token ends its session, an access token only itself.

        Nothing happens for an unknown token, or another client's: whether it was neither. `hint`
        may be wrong, so it is not needed. Raises OAuthError (the client), AuthUnavailable.
        """
        client_id = self._clients.authenticate(client).client_id
        stored = await self._sessions.find(token)
        if stored is not None:
            is_good = stored.client_id == client_id
            if is_good:
                await self._sessions.end(stored.family_id)
            return is_good
        try:
            claims = await self._keys.read(token)
        except NotAuthenticated:
            return False
        is_good = bool(claims["client_id"] == client_id)
        if is_good:
            await self._revoke_access_token(claims["jti"])
        return is_good

    def check_authorization(self, query: Mapping[str, str]) -> AuthorizationRequest:
        """Raises OAuthError, to be shown and never redirected, and AuthorizationRefused."""
        return self._authorization.check(query)

    async def log_in(
        self,
        request: AuthorizationRequest,
        username: str,
        password: str,
        totp: str | None,
        *,
        address: str,
    ) -> LoggedIn:
        """Raises LoginRefused, with one text for all reasons."""
        return await self._authorization.log_in(request, username, password, totp, address=address)

    async def userinfo(self, principal: Principal) -> dict[str, Any]:
        """Of a principal whose token is ours. Raises Forbidden, NotAuthenticated."""
        if principal.issuer != self.issuer:
            raise Forbidden("Only for tokens that this server has issued")
        found = {
            "sub": principal.id,
            "user_id": principal.id,
            "roles": sorted(principal.roles),
            "scope": " ".join(sorted(principal.scopes)),
        }
        if not is_user_id(principal.id):
            return found
        try:
            user = await self._stores.users.get_user(principal.id)
        except NotFound:
            user = None
        if user is None or user.disabled_at is not None:
            raise NotAuthenticated(reason="no_such_user")
        names = {"username": user.username, "preferred_username": user.username}
        return {**find_own_claims(user), **names, **found}

    def metadata(self) -> dict[str, Any]:
        """RFC 8414."""
        return describe_server(self.config, self._scopes.known)

    async def jwks(self) -> JsonObject:
        """The public keys (RFC 7517). Raises AuthUnavailable."""
        return await self._keys.jwks()

    async def _revoke_access_token(self, token_id: str) -> None:
        now = self._clock()
        await self._stores.credentials.add_revocation(
            Revocation(
                at=now,
                expires_at=now + REMEMBERED_SECONDS,
                token_id=token_id,
                issuer=self.issuer,
            )
        )
