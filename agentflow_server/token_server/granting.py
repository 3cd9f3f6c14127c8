"""The four ways to an access token (RFC 6749 sections 4.1.3, 4.3, 4.4 and 6)."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from uuid_utils import uuid7

from agentflow_server.config import ClientConfig
from agentflow_server.interfaces import GrantStore
from agentflow_server.models import AuthorizationCode, User
from agentflow_server.token_server import pkce
from agentflow_server.token_server.access_tokens import AccessTokens, Session
from agentflow_server.token_server.clients import Clients, require_grant
from agentflow_server.token_server.errors import LoginRefused, OAuthError
from agentflow_server.token_server.forms import ClientLogin, TokenAnswer
from agentflow_server.token_server.logins import Logins
from agentflow_server.token_server.opaque import REFRESH_PREFIX, hash_opaque, make_opaque
from agentflow_server.token_server.permissions import ScopeRules, read_scopes
from agentflow_server.token_server.sessions import Sessions, refuse

Form = Mapping[str, str]
Grant = Callable[[Form, ClientConfig, str], Awaitable[TokenAnswer]]


class Granting:
    """Every method raises OAuthError, AuthUnavailable and StoreUnavailable."""

    def __init__(
        self,
        clients: Clients,
        logins: Logins,
        sessions: Sessions,
        tokens: AccessTokens,
        *,
        grants: GrantStore,
        scopes: ScopeRules,
        password_grant: bool,
    ) -> None:
        self._clients = clients
        self._logins = logins
        self._sessions = sessions
        self._tokens = tokens
        self._grants = grants
        self._scopes = scopes
        self._ways: dict[str, Grant] = {
            "authorization_code": self._by_code,
            "refresh_token": self._by_refresh_token,
            "client_credentials": self._by_client,
        }
        if password_grant:
            self._ways["password"] = self._by_password

    async def grant(self, form: Form, login: ClientLogin | None, *, address: str) -> TokenAnswer:
        wanted = _require(form, "grant_type")
        way = self._ways.get(wanted)
        if way is None:
            raise OAuthError("unsupported_grant_type", "The grant_type is not offered")
        return await way(form, self._clients.authenticate(login), address)

    async def _by_password(self, form: Form, client: ClientConfig, address: str) -> TokenAnswer:
        require_grant(client, "password")
        scopes = read_scopes(form.get("scope"))
        username, password = _require(form, "username"), _require(form, "password")
        began_at = self._sessions.now()
        try:
            user = await self._logins.verify(username, password, form.get("totp"), address=address)
        except LoginRefused as refused:
            raise _as_oauth_error(refused) from None
        return await self._begin(user, client, scopes, Session(str(uuid7()), began_at))

    async def _by_code(self, form: Form, client: ClientConfig, _: str) -> TokenAnswer:
        require_grant(client, "authorization_code")
        text, verifier = _require(form, "code"), _require(form, "code_verifier")
        redirect_uri = _require(form, "redirect_uri")
        code = await self._take(text, self._sessions.now())
        if code.client_id != client.client_id:
            raise refuse("foreign_code")
        if code.redirect_uri != redirect_uri:
            raise refuse("redirect_uri_mismatch")
        if not pkce.proves(verifier, code.code_challenge):
            raise refuse("wrong_verifier")
        user = await self._sessions.get_user(code.user_id, code.family_id)
        session = Session(code.family_id, code.authenticated_at)
        return await self._begin(user, client, code.scopes, session)

    async def _by_refresh_token(self, form: Form, client: ClientConfig, _: str) -> TokenAnswer:
        require_grant(client, "refresh_token")
        scopes = read_scopes(form.get("scope"))
        stored, user = await self._sessions.get_good(
            _require(form, "refresh_token"), client.client_id
        )
        # Made before the old one is given up: whoever gets no answer can ask again.
        successor = make_opaque(REFRESH_PREFIX)
        answer = await self._tokens.issue(
            user,
            client.client_id,
            Session(stored.family_id, stored.authenticated_at),
            self._scopes.find_permissions(
                user, stored.scopes or None, scopes or None, client.scopes
            ),
            refresh_token=successor,
        )
        await self._sessions.replace(stored, successor)
        return answer

    async def _by_client(self, form: Form, client: ClientConfig, _: str) -> TokenAnswer:
        require_grant(client, "client_credentials")
        scopes = read_scopes(form.get("scope"))
        granted = self._scopes.narrow(client.scopes or (), scopes or None)
        return await self._tokens.issue_to_client(client.client_id, granted)

    async def _begin(
        self, user: User, client: ClientConfig, scopes: tuple[str, ...], session: Session
    ) -> TokenAnswer:
        """The first tokens of a session; `scopes` as they were asked for."""
        is_lasting = "refresh_token" in client.grants
        refresh_token = make_opaque(REFRESH_PREFIX) if is_lasting else None
        answer = await self._tokens.issue(
            user,
            client.client_id,
            session,
            self._scopes.find_permissions(user, scopes or None, client.scopes),
            refresh_token=refresh_token,
        )
        if refresh_token is not None:
            await self._sessions.start(
                session,
                user_id=user.user_id,
                client_id=client.client_id,
                scopes=scopes,
                refresh_token=refresh_token,
            )
        await self._sessions.confirm(user, session.session_id)
        return answer

    async def _take(self, text: str, now: datetime) -> AuthorizationCode:
        """A code that comes for the first time; the second time is a theft (RFC 6749 4.1.2)."""
        code_hash = hash_opaque(text)
        taken = None if code_hash is None else await self._grants.take_code(code_hash)
        if taken is None:
            raise refuse("unknown_code")
        code, is_first = taken
        if not is_first:
            await self._sessions.end(code.family_id)
            raise refuse("code_reused")
        if code.expires_at <= now:
            raise refuse("code_expired")
        return code


def _require(form: Form, name: str) -> str:
    value = form.get(name)
    if not value:
        raise OAuthError("invalid_request", f"The parameter {name} is missing")
    return value


def _as_oauth_error(refused: LoginRefused) -> OAuthError:
    if refused.retry_after is not None:
        return OAuthError.too_many(refused.retry_after, reason=refused.reason)
    return OAuthError("invalid_grant", LoginRefused.TEXT, reason=refused.reason)
