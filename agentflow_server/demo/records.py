"""What the provider knows, all of it in memory: users, clients, codes and tokens."""

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin
from authlib.oidc.core import AuthorizationCodeMixin

CODE_SECONDS = 300
GRANT_TYPES = ("authorization_code", "refresh_token")
RESPONSE_TYPES = ("code",)
AUTH_METHODS = ("client_secret_post", "client_secret_basic", "none")

_TOKEN = re.compile(r"[!#-\[\]-~]+")
"""Visible ASCII without `"` and the backslash: a scope in RFC 6749."""
_MAX_NAME = 64


class Unusable(Exception):
    """What was typed into a form; the message is for whoever typed it."""


@dataclass(frozen=True)
class User:
    id: int
    name: str


@dataclass(frozen=True)
class Client(ClientMixin):
    owner: User
    id: str
    secret: str
    """Empty for a public client."""
    name: str
    uri: str
    scope: str
    redirect_uris: Sequence[str]
    grant_types: Sequence[str]
    response_types: Sequence[str]
    auth_method: str

    def get_client_id(self) -> str:
        return self.id

    def get_default_redirect_uri(self) -> str | None:
        return self.redirect_uris[0] if len(self.redirect_uris) == 1 else None

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """None when more is asked for than there is; without a question, everything."""
        if not scope:
            return self.scope
        return scope if set(scope.split()) <= set(self.scope.split()) else None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(client_secret.encode(), self.secret.encode())

    def check_endpoint_auth_method(self, method: str, _endpoint: str) -> bool:
        return method == self.auth_method

    def check_response_type(self, response_type: str) -> bool:
        return response_type in self.response_types

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.grant_types


@dataclass(frozen=True)
class Code(AuthorizationCodeMixin):
    code: str
    client: Client
    user: User
    scope: str
    redirect_uri: str | None
    """As the request had it, if it did."""
    code_challenge: str | None
    nonce: str | None
    made_at: float
    family: str = field(default_factory=secrets.token_urlsafe)
    """What comes of it: the tokens, and those that replace them."""
    code_challenge_method = "S256"

    def get_redirect_uri(self) -> str | None:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str | None:
        return self.nonce

    def get_auth_time(self) -> int:
        return int(self.made_at)


@dataclass
class Token(TokenMixin):
    access_token: str
    refresh_token: str | None
    client: Client
    user: User
    scope: str
    expires_at: float
    family: str
    clock: Callable[[], float]
    is_spent: bool = False
    """The refresh token has been replaced."""
    revoked: bool = False

    def check_client(self, client: Client) -> bool:
        return client.id == self.client.id

    def get_scope(self) -> str:
        return self.scope

    def is_expired(self) -> bool:
        return self.clock() >= self.expires_at

    def is_revoked(self) -> bool:
        return self.revoked


class Memory:
    """Everything, until the process ends."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.clients: dict[str, Client] = {}
        self._users: dict[str, User] = {}
        self._sessions: dict[str, User] = {}
        self._codes: dict[str, Code] = {}
        self._spent_codes: set[str] = set()
        self._tokens: list[Token] = []

    def log_in(self, name: str) -> tuple[str, User]:
        """A new session of the user with that name, who need not have been here. Raises Unusable."""
        name = name.strip()
        if not name or len(name) > _MAX_NAME or not name.isprintable():
            raise Unusable(f"A name has 1 to {_MAX_NAME} characters that can be printed.")
        user = self._users.setdefault(name, User(len(self._users) + 1, name))
        session = secrets.token_urlsafe()
        self._sessions[session] = user
        return session, user

    def find_user(self, session: str) -> User | None:
        return self._sessions.get(session)

    def log_out(self, session: str) -> None:
        self._sessions.pop(session, None)

    def add_client(self, client: Client) -> None:
        self.clients[client.id] = client

    def add_code(self, code: Code) -> None:
        self._codes[code.code] = code

    def find_code(self, code: str, client: Client) -> Code | None:
        """One that comes twice has been stolen: what the first has brought is good no longer."""
        found = self._codes.get(code)
        if found is None or found.client.id != client.id:
            return None
        if code in self._spent_codes:
            self.revoke_family(found.family)
            return None
        return found if self.clock() < found.made_at + CODE_SECONDS else None

    def spend_code(self, code: Code) -> None:
        self._spent_codes.add(code.code)

    def add_token(self, token: Token) -> None:
        self._tokens.append(token)

    def find_access_token(self, value: str) -> Token | None:
        return next((token for token in self._tokens if token.access_token == value), None)

    def find_refresh_token(self, value: str) -> Token | None:
        return next((token for token in self._tokens if token.refresh_token == value), None)

    def revoke_family(self, family: str) -> None:
        for token in self._tokens:
            if token.family == family:
                token.revoked = True

    def disconnect(self, user: User, client_id: str) -> None:
        """The user takes back what he has allowed a client."""
        for token in self._tokens:
            if token.user == user and token.client.id == client_id:
                token.revoked = True

    def list_connected(self, user: User) -> Sequence[Client]:
        """The clients that act for the user."""
        tokens = [token for token in self._tokens if token.user == user and not token.revoked]
        return list({token.client.id: token.client for token in tokens}.values())


def read_client(form: Mapping[str, str], owner: User) -> Client:
    """The client that the form describes. Raises Unusable."""
    name = form.get("client_name", "").strip()
    if not name:
        raise Unusable("A client needs a name.")
    method = form.get("token_endpoint_auth_method", "")
    if method not in AUTH_METHODS:
        raise Unusable(f"Token Endpoint Auth Method is one of {', '.join(AUTH_METHODS)}.")
    scopes = form.get("scope", "").split()
    if not all(map(_TOKEN.fullmatch, scopes)):
        raise Unusable("Allowed Scope has words of visible ASCII characters.")
    redirect_uris = form.get("redirect_uri", "").split()
    if not redirect_uris or not all(map(_is_redirect_uri, redirect_uris)):
        raise Unusable("Redirect URIs begin with http:// or https://, and have no fragment.")
    return Client(
        owner=owner,
        id=secrets.token_urlsafe(18),
        secret="" if method == "none" else secrets.token_urlsafe(36),
        name=name,
        uri=form.get("client_uri", "").strip(),
        scope=" ".join(scopes),
        redirect_uris=redirect_uris,
        grant_types=_read_some(form, "grant_type", "Allowed Grant Types", GRANT_TYPES),
        response_types=_read_some(form, "response_type", "Allowed Response Types", RESPONSE_TYPES),
        auth_method=method,
    )


def _read_some(
    form: Mapping[str, str], name: str, label: str, known: Sequence[str]
) -> Sequence[str]:
    values = form.get(name, "").split()
    if not values or not set(values) <= set(known):
        raise Unusable(f"{label}: one a line of {', '.join(known)}.")
    return values


def _is_redirect_uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        return False
    return bool(
        _TOKEN.fullmatch(text) and parts.scheme in {"http", "https"} and host and "#" not in text
    )
