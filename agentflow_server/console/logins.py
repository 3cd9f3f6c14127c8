"""Getting a login, asking whose it is, and giving it back."""

from contextlib import suppress
from datetime import datetime
from urllib.parse import urlencode

import httpx2

from agentflow_server.client import (
    AgentflowClient,
    Credentials,
    Forbidden,
    LoginFailed,
    NotAuthenticated,
    NotFound,
    Token,
)
from agentflow_server.client.clients import Auth
from agentflow_server.client.credentials import OAuthLogin
from agentflow_server.client.exchange import parse
from agentflow_server.console.sessions import Login
from agentflow_server.models import Frozen

_SECONDS = 5.0


class Identity(Frozen):
    """Who the server says that a token belongs to."""

    user_id: str
    username: str | None = None
    scopes: list[str] | None = None
    expires_at: datetime | None = None


def ask_identity(url: str, auth: Auth) -> Identity | None:
    """None where the server accepts the login and does not tell whose it is.

    Raises AgentflowClientError.
    """
    with AgentflowClient(url, auth) as client:
        try:
            answer = client.make_authenticated_request("/verify-token")
        except (NotFound, NotAuthenticated):
            pass  # a server without authentication knows nobody, and refuses nobody else
        else:
            return parse(Identity, answer.content)
        with suppress(Forbidden):  # which only who is known is told
            client.list_agents()
    return None


def obtain(url: str, login: OAuthLogin) -> Token:
    """A new token from wherever `login` gets it. Raises LoginFailed."""
    with AgentflowClient(url, login) as client:
        client.get_authenticated_headers()
    token = login.store.load()
    if token is None:
        raise LoginFailed("there is no token")
    return token


def give_back(login: Credentials) -> bool:
    """Revoke a login (RFC 7009); whether the server said that it is revoked."""
    token = login.store.load()
    if not isinstance(login, Login) or token is None:
        return False
    kind, text = "refresh_token", token.refresh_token
    if text is None:
        kind, text = "access_token", token.access_token
    form = {"token": text, "token_type_hint": kind, "client_id": login.client_id or ""}
    try:
        answer = httpx2.post(
            f"{login.token_url.removesuffix('/token')}/revoke",
            content=urlencode(form).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            timeout=_SECONDS,
        )
    except httpx2.HTTPError:
        return False
    return answer.is_success
