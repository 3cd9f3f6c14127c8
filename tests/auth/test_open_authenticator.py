"""From a config to an authenticator, one method or several; and R92, the mode without one."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import SecretStr

from agentflow_server.auth import NoAuth, open_authenticator
from agentflow_server.auth.any_of import AnyOf
from agentflow_server.auth.api_key import ApiKeyAuth
from agentflow_server.auth.custom import CustomAuth
from agentflow_server.auth.introspection import IntrospectionAuth
from agentflow_server.auth.jwt import JwtAuth
from agentflow_server.config import (
    ApiKeyConfig,
    AuthConfig,
    ClaimsConfig,
    CustomAuthConfig,
    Discovery,
    IntrospectionConfig,
    JwksFile,
    JwksUrl,
    JwtConfig,
    KeyConfig,
    NoAuthConfig,
    StaticKeys,
)
from agentflow_server.errors import AuthUnavailable, ConfigError, NotAuthenticated
from agentflow_server.interfaces import Authenticator
from agentflow_server.models import ANONYMOUS, Principal
from agentflow_server.stores.sqlite import SqliteStore

REQUEST = HTTPConnection({"type": "http", "headers": []})
BEARER = HTTPAuthorizationCredentials(scheme="Bearer", credentials="anything")
OLD_SECRET = "Zq7v-Yn2qRk8wTq0xLh3vBc6dPs1uEj9gXa-old"
Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
def open_(tmp_path: Path) -> Callable[..., Authenticator]:
    store = SqliteStore(tmp_path / "agentflow.db")
    return lambda *configs: open_authenticator(configs, credentials=store)


def static(desk: Any, *more: KeyConfig, kid: str | None = None, **settings: Any) -> JwtConfig:
    key = KeyConfig(kid, desk.pair.algorithm, SecretStr(desk.pair.text), "JWT_SECRET_KEY")
    return JwtConfig(source=StaticKeys((key, *more)), **settings)


def opened_jwt(desk: Any, auth: Authenticator) -> JwtAuth:
    assert isinstance(auth, JwtAuth)
    auth._clock = desk.clock
    return auth


@pytest.mark.parametrize("credential", [None, BEARER])
async def test_r92_without_authentication_the_header_is_ignored(
    open_: Any, credential: HTTPAuthorizationCredentials | None
) -> None:
    auth = open_(NoAuthConfig())
    assert isinstance(auth, NoAuth)
    assert not auth.credential_required
    assert auth.security_scheme is None
    assert await auth.authenticate(REQUEST, Response(), credential) == Principal(ANONYMOUS, {})


def test_a_jwt_config_becomes_a_verifier(open_: Any, desk: Any) -> None:
    assert opened_jwt(desk, open_(static(desk))).verify(desk.write()).id == "alice"


def test_every_jwt_setting_counts(open_: Any, desk: Any) -> None:
    config = static(
        desk,
        kid="new",
        issuer="us",
        audience=("api", "web"),
        token_type="at+jwt",
        leeway=60.0,
        max_lifetime=7200.0,
        max_age=3600.0,
        claims=ClaimsConfig(
            user_id="email", scopes=("rights",), roles=("groups",), required={"tenant": "a"}
        ),
    )
    auth = opened_jwt(desk, open_(config))
    now = desk.clock.now
    claims = desk.claims(
        iss="us", aud="web", email="bob@example.com", iat=now, nbf=now + 60, tenant="a",
        rights=["read"], groups=["staff"],
    )  # fmt: skip
    header = {"typ": "at+jwt", "kid": "new"}
    principal = auth.verify(desk.write(claims, header=header))
    assert principal.id == "bob@example.com"
    assert (principal.scopes, principal.roles) == ({"read"}, {"staff"})
    for change in (
        {"iss": "them"}, {"aud": "we"}, {"email": 1.5}, {"nbf": now + 61}, {"tenant": "b"},
        {"exp": now + 7201}, {"iat": now - 3601},
    ):  # fmt: skip
        with pytest.raises(NotAuthenticated):
            auth.verify(desk.write({**claims, **change}, header=header))
    for change in ({"typ": "rt+jwt"}, {"kid": "old"}):
        with pytest.raises(NotAuthenticated):
            auth.verify(desk.write(claims, header={**header, **change}))


def test_a_rotated_secret_is_still_accepted(open_: Any, desk: Any) -> None:
    old = KeyConfig(None, "HS256", SecretStr(OLD_SECRET), "JWT_SECRET_KEYS[1]")
    auth = opened_jwt(desk, open_(static(desk, old)))
    assert auth.verify(desk.write()).id == "alice"
    assert auth.verify(jwt.encode(desk.claims(), OLD_SECRET, "HS256")).id == "alice"


def test_r1_weak_secrets_stop_the_server_unless_they_are_allowed(open_: Any) -> None:
    keys = tuple(KeyConfig(None, "HS256", SecretStr(f"test-{n}"), f"KEY_{n}") for n in range(2))
    with pytest.raises(ConfigError) as caught:
        open_(JwtConfig(source=StaticKeys(keys)))
    assert [problem[:6] for problem in caught.value.problems] == ["KEY_0:", "KEY_1:"]
    assert "test-0" not in str(caught.value)
    assert open_(JwtConfig(source=StaticKeys(keys), allow_weak_secret=True))


def test_a_key_set_may_be_in_a_file(open_: Any, desk: Any, provider: Any, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [provider.jwk("first")]}), encoding="utf-8")
    auth = open_(JwtConfig(source=JwksFile(path), issuer=provider.issuer))
    assert auth.verify(provider.token()).id == "alice"
    for text, why in (
        ("<html>", "not valid JSON"),
        ('{"keys": []}', "no key that can verify"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=why):
            open_(JwtConfig(source=JwksFile(path)))
    path.unlink()
    with pytest.raises(ConfigError, match=r"keys\.json"):
        open_(JwtConfig(source=JwksFile(path)))


@pytest.mark.parametrize("with_url", [False, True])
async def test_keys_may_be_fetched(open_: Any, ask: Ask, provider: Any, with_url: bool) -> None:
    source = JwksUrl(f"{provider.issuer}/keys") if with_url else Discovery()
    auth = open_(JwtConfig(source=source, issuer=provider.issuer))
    assert provider.received == []
    await auth.open()
    assert (await ask(auth, provider.token())).id == "alice"
    assert provider.count("openid-configuration") == (0 if with_url else 1)
    await auth.close()


async def test_a_custom_config_becomes_the_users_backend(
    open_: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    auth = open_(config)
    assert isinstance(auth, CustomAuth)
    assert auth._timeout == 1.5
    assert (await auth.authenticate(REQUEST, Response(), BEARER)).id == "alice"


# Several methods


def introspection(provider: Any, **settings: Any) -> IntrospectionConfig:
    return IntrospectionConfig(
        url=provider.origin + "/realms/shop/introspect",
        client_id="api",
        client_secret=SecretStr("secret"),
        **settings,
    )


def stop_clock(desk: Any, auth: Authenticator) -> list[type]:
    """Of our own keys' verifier; gives the kinds of all methods."""
    assert isinstance(auth, AnyOf)
    for method in auth.methods:
        if isinstance(method, JwtAuth) and method.rules.issuer is None:
            method._clock = desk.clock
    return [type(method) for method in auth.methods]


async def test_the_first_that_recognises_a_credential_decides(
    open_: Any, ask: Ask, refusal: Ask, desk: Any, provider: Any
) -> None:
    remote = JwtConfig(source=Discovery(), issuer=provider.issuer)
    configs: list[AuthConfig] = [static(desk), remote, introspection(provider), ApiKeyConfig()]
    auth = open_(*configs)
    assert stop_clock(desk, auth) == [JwtAuth, JwtAuth, IntrospectionAuth, ApiKeyAuth]
    await auth.open()
    provider.active["opaque"] = {"sub": "carol"}
    assert (await ask(auth, desk.write())).id == "alice"
    assert (await ask(auth, provider.token())).id == f"{provider.issuer}|alice"
    assert (await ask(auth, "opaque")).id == f"{provider.origin}/realms/shop/introspect|carol"
    asked = provider.count("/introspect")
    message, _, signature = desk.write().rpartition(".")
    assert await refusal(auth, f"{message}.{signature[::-1]}A") in {"bad_signature", "malformed"}
    assert await refusal(auth, "afk_nonsense") == "malformed_api_key"
    assert await refusal(auth, "opaque", "ApiKey") == "malformed_api_key"
    assert await refusal(auth, None) == "missing"
    assert provider.count("/introspect") == asked, "nothing falls through"
    assert await refusal(auth, provider.token(exp=1)) == "expired"
    await auth.close()


async def test_what_nobody_recognises_is_refused(open_: Any, refusal: Ask, provider: Any) -> None:
    auth = open_(JwtConfig(source=Discovery(), issuer=provider.issuer), ApiKeyConfig())
    for text in ("opaque", "a.b.c", "e30.bm8.e30", provider.token(iss="https://other.example")):
        assert await refusal(auth, text) == "not_recognised"
    assert await refusal(auth, provider.token(), "ApiKey") == "malformed_api_key"


async def test_an_issuers_token_is_never_judged_by_a_key_of_our_own(
    open_: Any, refusal: Ask, desk: Any, provider: Any
) -> None:
    auth = open_(static(desk), JwtConfig(source=Discovery(), issuer=provider.issuer))
    stop_clock(desk, auth)
    await auth.open()
    forged = desk.write(desk.claims(iss=provider.issuer))
    assert await refusal(auth, forged) == "alg_not_allowed"
    await auth.close()


async def test_introspection_as_the_last_takes_all_the_rest(
    open_: Any, ask: Ask, desk: Any, provider: Any
) -> None:
    auth = open_(
        JwtConfig(source=JwksUrl(provider.issuer + "/keys"), issuer="https://a.example"),
        ApiKeyConfig(),
        introspection(provider, issuer=provider.issuer, primary=True),
    )
    token = desk.write()
    provider.active[token] = {"sub": "carol", "iss": provider.issuer}
    assert (await ask(auth, token)).id == "carol"
    await auth.close()


async def test_the_only_issuer_and_the_primary_one_have_bare_user_ids(
    open_: Any, ask: Ask, desk: Any, provider: Any
) -> None:
    remote = {"source": JwksUrl(provider.issuer + "/keys"), "issuer": provider.issuer}
    other = JwtConfig(source=Discovery(), issuer="https://other.example")
    for configs, name in (
        ((static(desk), JwtConfig(**remote)), "alice"),
        ((JwtConfig(**remote), other), f"{provider.issuer}|alice"),
        ((other, JwtConfig(**remote, primary=True)), "alice"),
    ):
        auth = open_(*configs)
        assert isinstance(auth, AnyOf)
        method = next(
            method
            for method in auth.methods
            if isinstance(method, JwtAuth) and method.rules.issuer == provider.issuer
        )
        await method.open()
        assert (await ask(auth, provider.token())).id == name
        await auth.close()


@pytest.mark.parametrize("primary", [(True, False), (False, True), (True, True), (False, False)])
@pytest.mark.parametrize("alone", [True, False])
async def test_one_person_of_one_issuer_has_one_id_by_whichever_method(
    open_: Any, ask: Ask, desk: Any, provider: Any, primary: tuple[bool, bool], alone: bool
) -> None:
    remote = JwtConfig(source=Discovery(), issuer=provider.issuer, primary=primary[0])
    asking = introspection(provider, issuer=provider.issuer, primary=primary[1])
    others = [] if alone else [JwtConfig(source=Discovery(), issuer="https://other.example")]
    auth = open_(remote, asking, *others)
    await auth.methods[0].open()
    provider.active["opaque"] = {"sub": "alice", "iss": provider.issuer}
    name = "alice" if alone or any(primary) else f"{provider.issuer}|alice"
    assert (await ask(auth, provider.token())).id == name
    assert (await ask(auth, "opaque")).id == name
    await auth.close()


async def test_nobody_takes_the_name_of_another_issuers_user(
    open_: Any, refusal: Ask, desk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "repeating_auth_for_opening.py").write_text(
        "from agentflow_server.interfaces import BaseAuth\n"
        "class RepeatingAuth(BaseAuth):\n"
        "    credential_required = False\n"
        "    def authenticate(self, res, credential):\n"
        "        return {'user_id': credential.credentials if credential else 'guest'}\n",
        encoding="utf-8",
    )
    one, two = "https://one.example", "https://two.example"
    auth = open_(
        static(desk),
        JwtConfig(source=Discovery(), issuer=one),
        JwtConfig(source=Discovery(), issuer=two, primary=True),
        CustomAuthConfig(path="repeating_auth_for_opening:RepeatingAuth"),
    )
    stop_clock(desk, auth)
    taken = f"{one}|alice"
    assert await refusal(auth, desk.write(desk.claims(user_id=taken))) == "foreign_user_id"
    assert await refusal(auth, taken) == "unusable_answer"
    assert not auth.credential_required
    bearer = HTTPAuthorizationCredentials(scheme="Bearer", credentials=f"{two}|alice")
    assert (await auth.authenticate(REQUEST, Response(), bearer)).id == f"{two}|alice"
    assert (await auth.authenticate(REQUEST, Response(), None)).id == "guest"


SHOPS = """
from agentflow_server.interfaces import BaseAuth

class Shop(BaseAuth):
    def authenticate(self, res, credential):
        return {"user_id": credential.credentials}

class Picky(Shop):
    def recognises(self, credential):
        return credential.startswith("shop_")
"""


@pytest.fixture
def shops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"shops_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(SHOPS, encoding="utf-8")
    return name


async def test_a_class_that_knows_its_own_credentials_may_come_first(
    open_: Any, ask: Ask, refusal: Ask, desk: Any, shops: str
) -> None:
    auth = open_(CustomAuthConfig(path=f"{shops}:Picky"), static(desk), ApiKeyConfig())
    stop_clock(desk, auth)
    assert (await ask(auth, "shop_7")).id == "shop_7"
    assert (await ask(auth, desk.write())).id == "alice"
    assert await refusal(auth, "afk_nonsense") == "malformed_api_key"
    assert await refusal(auth, "opaque") == "not_recognised"


def test_a_class_that_takes_everything_must_come_last(open_: Any, desk: Any, shops: str) -> None:
    greedy = CustomAuthConfig(path=f"{shops}:Shop")
    assert open_(greedy)
    assert open_(static(desk), greedy)
    with pytest.raises(ConfigError) as caught:
        open_(greedy, static(desk))
    (problem,) = caught.value.problems
    assert problem.startswith(f"auth[0]: '{shops}:Shop' takes every bearer token")
    assert "recognises(self, credential)" in problem


async def test_the_problems_of_all_methods_are_known(
    open_: Any, ask: Ask, desk: Any, provider: Any, answer: Any
) -> None:
    provider.answers["/realms/shop/.well-known/openid-configuration"] = answer(b"<html>")
    auth = open_(static(desk), JwtConfig(source=Discovery(), issuer=provider.issuer))
    stop_clock(desk, auth)
    await auth.open()
    (problem,) = auth.problems()
    assert provider.issuer in problem
    with pytest.raises(AuthUnavailable):
        await ask(auth, provider.token())
    assert (await ask(auth, desk.write())).id == "alice"
    await auth.close()


def test_every_problem_is_told_at_once(open_: Any) -> None:
    weak = KeyConfig(None, "HS256", SecretStr("short"), "JWT_SECRET_KEY")
    with pytest.raises(ConfigError) as caught:
        open_(JwtConfig(source=StaticKeys((weak,))), CustomAuthConfig(path="no_such_module:X"))
    assert len(caught.value.problems) == 2


def test_several_methods_recognise_what_one_of_them_does(open_: Any, desk: Any) -> None:
    auth = open_(static(desk), ApiKeyConfig())

    def recognised(text: str, scheme: str = "Bearer") -> bool:
        return bool(auth.recognises(HTTPAuthorizationCredentials(scheme=scheme, credentials=text)))

    assert recognised(desk.write())
    assert recognised("afk_x")
    assert not recognised("opaque")
    assert not recognised(desk.write(), "Basic")
