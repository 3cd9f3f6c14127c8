"""From a config to an authenticator; and R92, the mode without one."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import SecretStr

from agentflow_server.auth import CustomAuth, JwtAuth, NoAuth, open_authenticator
from agentflow_server.config import CustomAuthConfig, JwtConfig, NoAuthConfig
from agentflow_server.errors import ConfigError, NotAuthenticated
from agentflow_server.models import ANONYMOUS, Principal

REQUEST = HTTPConnection({"type": "http", "headers": []})
BEARER = HTTPAuthorizationCredentials(scheme="Bearer", credentials="anything")


@pytest.mark.parametrize("credential", [None, BEARER])
async def test_r92_without_authentication_the_header_is_ignored(
    credential: HTTPAuthorizationCredentials | None,
) -> None:
    auth = open_authenticator(NoAuthConfig())
    assert isinstance(auth, NoAuth)
    assert not auth.credential_required
    assert auth.security_scheme is None
    assert await auth.authenticate(REQUEST, Response(), credential) == Principal(ANONYMOUS, {})


def jwt_auth(desk: Any, **settings: Any) -> JwtAuth:
    auth = open_authenticator(JwtConfig(secret_key=SecretStr(desk.pair.text), **settings))
    assert isinstance(auth, JwtAuth)
    auth._clock = desk.clock
    return auth


def test_a_jwt_config_becomes_a_verifier(desk: Any) -> None:
    assert jwt_auth(desk).verify(desk.write()).id == "alice"


def test_every_jwt_setting_counts(desk: Any) -> None:
    auth = jwt_auth(desk, issuer="us", audience=["api", "web"], user_id_claim="email", leeway=60.0)
    claims = desk.claims(iss="us", aud="web", email="bob@example.com", nbf=desk.clock.now + 60)
    assert auth.verify(desk.write(claims)).id == "bob@example.com"
    for change in ({"iss": "them"}, {"aud": "we"}, {"email": 1.5}, {"nbf": desk.clock.now + 61}):
        with pytest.raises(NotAuthenticated):
            auth.verify(desk.write({**claims, **change}))


def test_a_single_audience_is_one_name_and_no_alphabet(desk: Any) -> None:
    auth = jwt_auth(desk, audience="api")
    assert auth.verify(desk.write(desk.claims(aud="api"))).id == "alice"
    for part in ("a", "p", "ap", ""):
        with pytest.raises(NotAuthenticated):
            auth.verify(desk.write(desk.claims(aud=part)))


def test_r1_a_weak_secret_stops_the_server_unless_it_is_allowed() -> None:
    weak = SecretStr("test-secret")
    with pytest.raises(ConfigError, match=r"^MY_SECRET: .*agentflow secret") as caught:
        open_authenticator(JwtConfig(secret_key=weak, secret_name="MY_SECRET"))
    assert "test-secret" not in str(caught.value)
    assert open_authenticator(JwtConfig(secret_key=weak, allow_weak_secret=True))


async def test_a_custom_config_becomes_the_users_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "shop_auth_for_opening.py").write_text(
        "from agentflow_server.interfaces import BaseAuth\n"
        "class ShopAuth(BaseAuth):\n"
        "    def __init__(self, users): self.users = users\n"
        "    def authenticate(self, res, credential):\n"
        "        return self.users.get(credential.credentials)\n",
        encoding="utf-8",
    )
    config = CustomAuthConfig(
        path="shop_auth_for_opening:ShopAuth",
        options=json.loads('{"users": {"anything": {"user_id": "alice"}}}'),
        timeout=1.5,
    )
    auth = open_authenticator(config)
    assert isinstance(auth, CustomAuth)
    assert auth._timeout == 1.5
    assert (await auth.authenticate(REQUEST, Response(), BEARER)).id == "alice"
