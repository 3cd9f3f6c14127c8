"""The front of the code grant: what a browser brings from a client, and takes back to it."""

from collections.abc import Mapping
from datetime import timedelta

from uuid_utils import uuid7

from agentflow_server.config import ClientConfig
from agentflow_server.interfaces import GrantStore
from agentflow_server.models import AuthorizationCode
from agentflow_server.token_server import pkce
from agentflow_server.token_server.clients import Clients
from agentflow_server.token_server.errors import AuthorizationRefused, LoginRefused, OAuthError
from agentflow_server.token_server.forms import AuthorizationRequest, LoggedIn
from agentflow_server.token_server.logins import Logins
from agentflow_server.token_server.opaque import CODE_PREFIX, hash_made, make_opaque
from agentflow_server.token_server.permissions import read_scopes
from agentflow_server.token_server.redirects import is_registered, make_redirect
from agentflow_server.token_server.sessions import Sessions

CODE_SECONDS = 60


class Authorization:
    """Sends nobody anywhere before client and redirect_uri are known to belong together."""

    def __init__(
        self,
        issuer: str,
        clients: Clients,
        logins: Logins,
        sessions: Sessions,
        grants: GrantStore,
    ) -> None:
        self._issuer = issuer
        self._clients = clients
        self._logins = logins
        self._sessions = sessions
        self._grants = grants

    def check(self, query: Mapping[str, str]) -> AuthorizationRequest:
        """Raises OAuthError, to be shown, and AuthorizationRefused."""
        client = self._clients.find(query.get("client_id", ""))
        if client is None:
            raise OAuthError("invalid_request", "The client is not known", reason="unknown_client")
        redirect_uri = query.get("redirect_uri", "")
        if not is_registered(redirect_uri, client.redirect_uris):
            raise OAuthError(
                "invalid_request",
                "The redirect_uri is missing, or is not registered for this client",
                reason="redirect_uri_mismatch",
            )
        try:
            return _read_request(query, client, redirect_uri)
        except OAuthError as error:
            url = self._answer(
                redirect_uri,
                query.get("state"),
                error=error.code,
                error_description=error.description,
            )
            raise AuthorizationRefused(url, reason=error.reason) from None

    async def log_in(
        self,
        request: AuthorizationRequest,
        username: str,
        password: str,
        totp: str | None,
        *,
        address: str,
    ) -> LoggedIn:
        """Raises LoginRefused."""
        now = self._sessions.now()
        user = await self._logins.verify(username, password, totp, address=address)
        text, session_id = make_opaque(CODE_PREFIX), str(uuid7())
        code = AuthorizationCode(
            code_hash=hash_made(text),
            client_id=request.client_id,
            redirect_uri=request.redirect_uri,
            code_challenge=request.code_challenge,
            user_id=user.user_id,
            scopes=request.scopes,
            authenticated_at=now,
            expires_at=self._sessions.now() + timedelta(seconds=CODE_SECONDS),
            family_id=session_id,
        )
        await self._grants.add_code(code)
        try:
            await self._sessions.confirm(user, session_id)
        except OAuthError as error:
            raise LoginRefused(reason=error.reason) from None
        return LoggedIn(self._answer(request.redirect_uri, request.state, code=text), user.user_id)

    def _answer(self, redirect_uri: str, state: str | None, **parameters: str) -> str:
        # With `iss` a client that knows several servers sees whose answer it is (RFC 9207).
        return make_redirect(redirect_uri, {**parameters, "state": state, "iss": self._issuer})


def _read_request(
    query: Mapping[str, str], client: ClientConfig, redirect_uri: str
) -> AuthorizationRequest:
    """Raises OAuthError."""
    if query.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "The response_type is not code")
    if query.get("response_mode", "query") != "query":
        raise OAuthError("invalid_request", "The response_mode is not query")
    if "authorization_code" not in client.grants:
        raise OAuthError("unauthorized_client", "The client may not use this grant")
    # Without a method it is "plain", which shows the verifier to whoever sees this request.
    if query.get("code_challenge_method") != pkce.METHOD:
        raise OAuthError("invalid_request", "The code_challenge_method is not S256", reason="pkce")
    challenge = query.get("code_challenge", "")
    if not pkce.is_challenge(challenge):
        raise OAuthError("invalid_request", "The code_challenge is missing or malformed")
    return AuthorizationRequest(
        client_id=client.client_id,
        client_name=client.name,
        redirect_uri=redirect_uri,
        scopes=read_scopes(query.get("scope")),
        state=query.get("state"),
        code_challenge=challenge,
    )
