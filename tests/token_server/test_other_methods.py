"""The token server beside other methods, and the keys it keeps in the database."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import SecretStr

from agentflow_server.auth import open_authenticator
from agentflow_server.auth.stored_keys import StoredKeys, find_signing_key
from agentflow_server.config import (
    ApiKeyConfig,
    CustomAuthConfig,
    JwtConfig,
    KeyConfig,
    StaticKeys,
    TokenServerAuthConfig,
)
from agentflow_server.errors import AuthUnavailable, ConfigError, NotAuthenticated, StoreUnavailable
from agentflow_server.token_server import make_signing_key

STATIC_SECRET = "kJ8vQ2mX9rT4wZ7yB1nC6dF3gH5sL0pA-eUiOqRtYx"
OTHER = "https://id.example.com"
REQUEST = HTTPConnection({"type": "http", "headers": []})


def bearer(token):
    return HTTPAuthorizationCredentials(scheme="Bearer", credentials=token)


def static(**settings):
    key = KeyConfig(None, "HS256", SecretStr(STATIC_SECRET), "JWT_SECRET_KEY")
    return JwtConfig(source=StaticKeys((key,)), **settings)


def sign(**claims):
    return jwt.encode({"exp": time.time() + 60, **claims}, STATIC_SECRET, "HS256")


@pytest.fixture
def ask(scene):
    """What a server with these methods besides makes of a token."""

    async def ask(token, *methods):
        issuer = scene.config.issuer
        configs = [TokenServerAuthConfig(issuer=issuer, audience=issuer), *methods]
        auth = open_authenticator(configs, credentials=scene.store, grants=scene.store)
        await auth.open()
        try:
            return await auth.authenticate(REQUEST, Response(), bearer(token))
        finally:
            await auth.close()

    return ask


async def test_each_method_takes_its_own_tokens(scene, caller, ask):
    own = (await caller.log_in()).access_token
    for others in ([static()], [static(issuer=OTHER)], [ApiKeyConfig(), static(primary=True)]):
        principal = await ask(own, *others)
        assert (principal.id, principal.method) == (scene.alice.user_id, "jwt")
    assert (await ask(sign(sub="alice"), static())).id == "alice"
    assert (await ask(sign(sub="alice", iss=OTHER), static(issuer=OTHER))).id == f"{OTHER}|alice"


async def test_nobody_elses_key_signs_for_the_token_server(scene, ask):
    forged = sign(sub=scene.alice.user_id, iss=scene.config.issuer)
    with pytest.raises(NotAuthenticated):
        await ask(forged, static())


async def test_nobody_elses_user_is_called_like_a_client_of_ours(ask):
    with pytest.raises(NotAuthenticated) as caught:
        await ask(sign(sub="client:robot"), static())
    assert caught.value.reason == "foreign_user_id"


async def test_a_class_that_takes_everything_still_has_to_be_the_last(scene, tmp_path, monkeypatch):
    source = "from agentflow_server import BaseAuth\nclass Mine(BaseAuth):\n"
    source += "    def authenticate(self, res, credential):\n        return None\n"
    (tmp_path / "taking_everything.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = CustomAuthConfig(path="taking_everything:Mine")
    own = TokenServerAuthConfig(issuer="https://a", audience="https://a")
    stores = {"credentials": scene.store, "grants": scene.store}
    assert open_authenticator([own, mine], **stores)
    with pytest.raises(ConfigError, match=r"^auth\[0\]"):
        open_authenticator([own, mine, ApiKeyConfig()], **stores)


class Away:
    """A store that can be told to be away; counts how often it is asked."""

    def __init__(self, store):
        self._store = store
        self.asked = 0
        self.is_away = False

    async def list_signing_keys(self):
        self.asked += 1
        if self.is_away:
            raise StoreUnavailable("away")
        return await self._store.list_signing_keys()


@pytest.fixture
async def keys(scene, server):
    store = Away(scene.store)
    keys = StoredKeys(store, clock=scene.clock)
    await keys.open()
    yield keys, store
    await keys.close()


async def test_stored_keys_are_read_twice_a_minute_and_stay_the_same_object(scene, keys):
    keys, store = keys
    first = keys.current(scene.clock.now)
    assert not keys.is_overdue(scene.clock.now + 29)
    assert keys.is_overdue(scene.clock.now + 30)
    assert not await keys.renew(scene.clock.now + 30)
    assert keys.current(scene.clock.now + 31) is first
    assert store.asked == 2


async def test_for_a_key_nobody_knows_they_are_read_once_a_second(scene, keys):
    keys, store = keys
    now = scene.clock.now + 5
    await asyncio.gather(*(keys.renew(now) for _ in range(20)))
    assert not await keys.renew(now + 0.5)
    assert store.asked == 2
    moment = datetime.now(UTC)
    await scene.store.add_signing_key(make_signing_key(moment), others_retire_at=moment)
    assert await keys.renew(now + 1.1)
    assert len(keys.current(now + 2).keys) == 2


async def test_keys_are_used_for_a_minute_when_they_cannot_be_read(scene, keys, caplog):
    keys, store = keys
    store.is_away = True
    assert not await keys.renew(scene.clock.now + 40)
    assert keys.current(scene.clock.now + 60)
    with pytest.raises(AuthUnavailable):
        keys.current(scene.clock.now + 61)
    assert "could not be read" in caplog.text
    assert keys.problems() == ()


async def test_without_keys_from_the_start_everything_is_unavailable(scene):
    store = Away(scene.store)
    store.is_away = True
    keys = StoredKeys(store)
    await keys.open()
    assert keys.problems()
    with pytest.raises(AuthUnavailable):
        await keys.list_keys(time.time())
    await keys.close()


@pytest.mark.parametrize("pem", ["garbage", None])
async def test_a_key_that_cannot_be_used_is_left_out(scene, server, caplog, pem):
    if pem is None:
        key = rsa.generate_private_key(65537, 2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    moment = datetime.now(UTC)
    bad = replace(make_signing_key(moment, signs_from=moment), private_pem=pem)
    await scene.store.add_signing_key(bad, others_retire_at=moment + timedelta(days=1))
    keys = StoredKeys(scene.store)
    await keys.open()
    assert len(keys.current(time.time()).keys) == 1
    assert bad.kid in caplog.text
    await keys.close()


def test_the_newest_key_whose_time_has_come_signs():
    now = datetime.now(UTC)
    old, new, future = (
        make_signing_key(now, signs_from=now + timedelta(seconds=seconds))
        for seconds in (-20, -10, 60)
    )
    assert find_signing_key([old, new, future], now.timestamp()) == new
    assert find_signing_key([future], now.timestamp()) == future
    assert find_signing_key([], now.timestamp()) is None
