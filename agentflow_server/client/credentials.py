"""Where a client's tokens come from: a string, a login, or a function of yours."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2

from agentflow_server.client.endpoint import ClientAuth, TokenEndpoint
from agentflow_server.client.errors import LoginFailed
from agentflow_server.client.steps import Steps, work
from agentflow_server.client.stores import MemoryTokens, TokenStore
from agentflow_server.client.tokens import Token

TokenFunction = Callable[[], str | Token | Awaitable[str | Token]]


class Credentials(ABC):
    """One login. Clients that share the object, or its store, share its tokens."""

    store: TokenStore

    @property
    def source(self) -> str:
        """Names the login, without its secrets: whose tokens those in the store are."""
        return ""

    @property
    def known(self) -> Token | None:
        """What can be sent without asking anybody."""
        return None

    @abstractmethod
    def obtain(self, stored: Token | None) -> Steps[Token]:
        """A new token; `stored` is the one before. Raises LoginFailed."""


@dataclass(frozen=True, eq=False)
class StaticToken(Credentials):
    """A token or an API key that is simply there. Nothing takes its place when it expires."""

    token: str = field(repr=False)
    store: TokenStore = field(default_factory=MemoryTokens, init=False, repr=False)

    @property
    def known(self) -> Token:
        return Token.of(self.token)

    def obtain(self, stored: Token | None) -> Steps[Token]:
        yield from ()
        return self.known


@dataclass(frozen=True, eq=False)
class FunctionToken(Credentials):
    """Your function, called when there is no token, or the one it gave is refused or expires.

    An `async def` needs the AsyncAgentflowClient, which calls any other in a thread.
    """

    function: TokenFunction = field(repr=False)
    store: TokenStore = field(default_factory=MemoryTokens, init=False, repr=False)

    def obtain(self, stored: Token | None) -> Steps[Token]:
        try:
            given: Any = yield from work(self.function)
        except httpx2.RequestError as error:
            raise LoginFailed(
                f"the function for tokens got no answer ({type(error).__name__})",
                code="unreachable",
            ) from error
        if isinstance(given, Token):
            return replace(given, source=self.source)
        if not isinstance(given, str):
            raise LoginFailed(f"the function for tokens returned a {type(given).__name__}")
        return Token.of(given)


@dataclass(frozen=True, eq=False)
class OAuthLogin(Credentials):
    """A login at a token endpoint. `extra` are more fields of its form, such as `audience`."""

    token_url: str
    client_id: str | None = field(default=None, kw_only=True)
    client_secret: str | None = field(default=None, kw_only=True, repr=False)
    client_auth: ClientAuth = field(default="client_secret_basic", kw_only=True)
    scope: str | None = field(default=None, kw_only=True)
    extra: Mapping[str, str] = field(default_factory=dict, kw_only=True, repr=False)
    store: TokenStore = field(default_factory=MemoryTokens, kw_only=True)

    @property
    def source(self) -> str:
        return f"{self.token_url} {self.client_id or ''}"

    def _grant(self, grant_type: str, **fields: str) -> Steps[Token]:
        endpoint = TokenEndpoint(
            url=self.token_url,
            client_id=self.client_id,
            client_secret=self.client_secret,
            client_auth=self.client_auth,
            scope=self.scope,
            extra=self.extra,
        )
        return endpoint.grant(self.source, {"grant_type": grant_type, **fields})

    def _refresh(self, refresh_token: str) -> Steps[Token]:
        token = yield from self._grant("refresh_token", refresh_token=refresh_token)
        # Without rotation the old one stays good (RFC 6749 section 6).
        return token if token.refresh_token else replace(token, refresh_token=refresh_token)


@dataclass(frozen=True, eq=False)
class Password(OAuthLogin):
    """A user's name and password, for first-party programs; refreshed without them if possible."""

    username: str
    password: str = field(repr=False)

    @property
    def source(self) -> str:
        return f"{super().source} {self.username}"

    def obtain(self, stored: Token | None) -> Steps[Token]:
        if stored is not None and stored.refresh_token:
            try:
                return (yield from self._refresh(stored.refresh_token))
            except LoginFailed as error:
                if not _is_spent(error):
                    raise
        return (yield from self._grant("password", username=self.username, password=self.password))


@dataclass(frozen=True, eq=False)
class ClientCredentials(OAuthLogin):
    """A program's own name and secret."""

    client_id: str = field()
    client_secret: str = field(repr=False)

    def obtain(self, stored: Token | None) -> Steps[Token]:
        return self._grant("client_credentials")


@dataclass(frozen=True, eq=False)
class RefreshToken(OAuthLogin):
    """A login that was made elsewhere: the refresh token is yours, or already in `store`.

    Servers give a new refresh token for each one: keep it in a TokenFile or KeyringTokens, or it is
    lost with the process. The one in the store is newer, and tried first.
    """

    refresh_token: str | None = field(default=None, repr=False)

    def obtain(self, stored: Token | None) -> Steps[Token]:
        ours = stored.refresh_token if stored is not None else None
        refused: LoginFailed | None = None
        for refresh_token in dict.fromkeys(filter(None, (ours, self.refresh_token))):
            try:
                return (yield from self._refresh(refresh_token))
            except LoginFailed as error:
                if not _is_spent(error):
                    raise
                refused = error
        raise refused or LoginFailed("there is no refresh token: log in first")


def _is_spent(error: LoginFailed) -> bool:
    """The refresh token is known no more (RFC 6749, section 5.2)."""
    return error.code == "invalid_grant"
