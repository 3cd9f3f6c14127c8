"""A token server on a SQLite file, with a clock that tests set and cheap hashes."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.auth import Revocations, open_authenticator
from agentflow_server.config import ClientConfig, TokenServerAuthConfig, TokenServerConfig
from agentflow_server.config.clients import make_own_client
from agentflow_server.limits import MemoryRateLimiter
from agentflow_server.models import Principal, Quota, User, UserChange, UserSecrets
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.store_users import make_user
from agentflow_server.token_server import (
    ClientLogin,
    OAuthError,
    ScopeRules,
    TokenAnswer,
    TokenServer,
    TokenStores,
)
from agentflow_server.token_server.pkce import make_challenge
from agentflow_server.users.hashes import Argon2id
from agentflow_server.users.passwords import Passwords

ISSUER = "https://agents.example.com"
GOOD = "tea kettle sings at noon"
SECRET = "vK3jQ9xWb7LrT2sYcN5mHd8Pe1Gf4Ae6"
TOTP_SECRET = b"12345678901234567890"
ADDRESS = "192.0.2.7"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

CLIENTS = {
    "agentflow": make_own_client(ISSUER, password_grant=True),
    "web": ClientConfig(
        client_id="web",
        name="Web",
        grants=("authorization_code", "refresh_token"),
        redirect_uris=("https://app.example.com/back?x=1", "http://127.0.0.1/callback"),
    ),
    "own": ClientConfig(client_id="own", name="Own", grants=("password", "refresh_token")),
    "once": ClientConfig(client_id="once", name="Once", grants=("password",)),
    "reader": ClientConfig(
        client_id="reader",
        name="Reader",
        grants=("password", "refresh_token"),
        scopes=("threads:read",),
    ),
    "robot": ClientConfig(
        client_id="robot",
        name="Robot",
        secret=SECRET,
        grants=("client_credentials",),
        scopes=("threads:read", "runs:create"),
    ),
}
RULES = ScopeRules(
    known=frozenset({"threads:read", "threads:write", "runs:create", "interrupts:answer:any"}),
    of_roles={"editor": ["threads:write"]},
)


class SetClock:
    """Stands still until a test moves it. Starts now: the store has a clock of its own."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@dataclass
class Scene:
    """The server, who uses it, and what the door of the API says of its tokens."""

    store: SqliteStore
    config: TokenServerConfig
    clock: SetClock
    limiter: MemoryRateLimiter
    passwords: Passwords = field(default_factory=lambda: Passwords(parameters=Argon2id(64, 1, 1)))
    alice: User = field(init=False)

    def make_server(self, store: Any = None, **config: Any) -> TokenServer:
        store = store or self.store
        return TokenServer(
            self.config.model_copy(update=config),
            TokenStores(store, store, store),
            passwords=self.passwords,
            limiter=self.limiter,
            per_address=Quota(20, 60),
            scopes=RULES,
            clock=self.clock,
        )

    async def add_user(self, name: str, *, password: str = GOOD, **change: Any) -> User:
        user = make_user(name)
        hash_ = await self.passwords.hash(password)
        await self.store.add_users([(user, UserSecrets(hash_))])
        return await self.store.update_user(user.user_id, UserChange(**change))

    async def judge(self, token: str) -> Principal:
        """As a server that starts now would. Raises NotAuthenticated."""
        auth = open_authenticator(
            [TokenServerAuthConfig(issuer=self.config.issuer, audience=self.config.audience)],
            credentials=self.store,
            grants=self.store,
        )
        revocations = Revocations(self.store)
        await auth.open()
        await revocations.open()
        try:
            credential = HTTPAuthorizationCredentials(scheme="Bearer", credentials=token)
            principal = await auth.authenticate(None, None, credential)  # type: ignore[arg-type]
            await revocations.check(principal)
            return principal
        finally:
            await revocations.close()
            await auth.close()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    config = TokenServerConfig(issuer=ISSUER, audience=ISSUER, password_grant=True, clients=CLIENTS)
    async with SqliteStore(tmp_path / "agentflow.db") as store:
        scene = Scene(store, config, SetClock(), MemoryRateLimiter())
        scene.alice = await scene.add_user(
            "alice", roles=["editor"], scopes=["threads:read"], claims={"team": "red"}
        )
        yield scene


@pytest.fixture
async def server(scene: Scene) -> AsyncIterator[TokenServer]:
    server = scene.make_server()
    await server.open()
    yield server
    await server.close()


class Caller:
    """Sends forms as the HTTP side does, and tells how they were refused."""

    def __init__(self, server: TokenServer) -> None:
        self.server = server

    async def ask(
        self, grant_type: str, client: str = "own", *, secret: str | None = None, **form: str
    ) -> TokenAnswer:
        form = {"grant_type": grant_type, **form}
        return await self.server.grant(form, ClientLogin(client, secret), address=ADDRESS)

    async def log_in(
        self, username: str = "alice", password: str = GOOD, client: str = "own", **form: str
    ) -> TokenAnswer:
        return await self.ask("password", client, username=username, password=password, **form)

    async def refresh(self, token: str | None, client: str = "own", **form: str) -> TokenAnswer:
        assert token is not None
        return await self.ask("refresh_token", client, refresh_token=token, **form)

    async def refusal(self, asked: Any) -> OAuthError:
        with pytest.raises(OAuthError) as caught:
            await asked
        return caught.value

    def query(self, **changes: str | None) -> dict[str, str]:
        query = {
            "response_type": "code",
            "client_id": "web",
            "redirect_uri": "https://app.example.com/back?x=1",
            "state": "a b&c",
            "code_challenge": make_challenge(VERIFIER),
            "code_challenge_method": "S256",
            **changes,
        }
        return {name: value for name, value in query.items() if value is not None}


@pytest.fixture
def caller(server: TokenServer) -> Caller:
    return Caller(server)


@pytest.fixture
def verifier() -> str:
    return VERIFIER


@pytest.fixture
def client_secret() -> str:
    return SECRET


@pytest.fixture
def totp_secret() -> bytes:
    return TOTP_SECRET


@pytest.fixture
def call_from() -> Callable[[TokenServer], Caller]:
    return Caller
