"""The recipes of docs/authentication.md, against a local provider that issues the same tokens."""

import asyncio
import base64
import json
import re
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus, urlsplit

import httpx2
import jwt
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI, HTTPException, Request

from agentflow_server import create_app

PAGE = "docs/authentication.md"
PRIVATE = ("JWT_SECRET_KEY", "JWT_SECRET_KEYS", "JWT_ALGORITHM", "JWT_ISSUER", "JWT_AUDIENCE")
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ANOTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Shape:
    """What a provider's access tokens look like, and whom they name."""

    claims: dict[str, Any]
    """Without the times and `iss`."""
    user_id: str
    scopes: set[str]
    elsewhere: dict[str, Any]
    """What a token for another service has instead."""
    id_token: dict[str, Any]
    """An ID token for the client that signed the user in."""
    roles: set[str] = field(default_factory=set)
    header: dict[str, Any] = field(default_factory=dict)
    key_names_alg: bool = True


UUID = "5b0c2a34-8f6e-4f2b-9d2c-0a7d8e1f3b66"
CLIENT = {
    "Keycloak": "web",
    "Auth0": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja",
    "Entra ID": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "Okta": "0oabcd1234EFGHijk5d7",
    "Google": "32555940559.apps.googleusercontent.com",
    "Cognito": "1h57kf5cpq17m0eml12EXAMPLE",
}

SHAPES = {
    "Keycloak": Shape(
        claims={
            "jti": "onrtro:5e1d", "aud": ["agents", "account"], "sub": UUID, "typ": "Bearer",
            "azp": "web", "sid": "0c8f", "acr": "1", "allowed-origins": ["https://app.example.com"],
            "realm_access": {"roles": ["offline_access", "writer"]},
            "resource_access": {"agents": {"roles": ["tester"]}, "account": {"roles": ["x"]}},
            "scope": "openid profile email", "email_verified": True, "preferred_username": "alice",
        },
        user_id=UUID,
        scopes={"openid", "profile", "email"},
        roles={"offline_access", "writer", "tester"},
        elsewhere={"aud": "account"},
        id_token={
            "aud": "web", "typ": "ID", "at_hash": "x3Fq", "sub": UUID, "azp": "web", "sid": "0c8f"
        },
        header={"typ": "JWT"},
    ),
    "Auth0": Shape(
        claims={
            "sub": "auth0|6553da60a54af58e29493993",
            "aud": ["https://agents.example.com", "https://TENANT.eu.auth0.com/userinfo"],
            "client_id": CLIENT["Auth0"], "jti": "73WakrfVbNJBaAmhQtEeDv",
            "scope": "openid profile", "permissions": ["threads:read", "threads:write"],
            "https://agents.example.com/roles": ["writer"],
        },
        user_id="auth0|6553da60a54af58e29493993",
        scopes={"openid", "profile", "threads:read", "threads:write"},
        roles={"writer"},
        elsewhere={"aud": ["https://billing.example.com", "https://TENANT.eu.auth0.com/userinfo"]},
        id_token={
            "sub": "auth0|6553da60a54af58e29493993", "aud": CLIENT["Auth0"], "sid": "a1", "name": "A"
        },
        header={"typ": "at+jwt"},
    ),
    "Entra ID": Shape(
        claims={
            "aud": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "azp": UUID, "azpacr": "0",
            "aio": "AXQAi", "name": "Alice", "oid": "11a4f2d0-aaaa-bbbb-cccc-000000000001",
            "preferred_username": "alice@example.com", "rh": "0.AX", "roles": ["writer"],
            "scp": "access_as_user threads.read", "sub": "pairwise-of-alice", "uti": "nSnT", "ver": "2.0",
            "tid": "11111111-2222-3333-4444-555555555555",
        },
        user_id="11a4f2d0-aaaa-bbbb-cccc-000000000001",
        scopes={"access_as_user", "threads.read"},
        roles={"writer"},
        elsewhere={"aud": "00000003-0000-0000-c000-000000000000"},
        # For the same registration: only `azp` tells the two apart.
        id_token={
            "aud": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "ver": "2.0", "sub": "pairwise-of-alice",
            "oid": "11a4f2d0-aaaa-bbbb-cccc-000000000001", "roles": ["writer"], "uti": "x",
        },
        header={"typ": "JWT"},
        key_names_alg=False,
    ),
    "Okta": Shape(
        claims={
            "ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
            "aud": "api://default", "cid": CLIENT["Okta"], "uid": "00ujmkLgagxeRrAg20g3",
            "scp": ["openid", "email"], "auth_time": 1467142021, "sub": "alice@example.com",
            "groups": ["writer"],
        },
        user_id="00ujmkLgagxeRrAg20g3",
        scopes={"openid", "email"},
        roles={"writer"},
        elsewhere={"aud": "api://billing"},
        id_token={
            "aud": CLIENT["Okta"], "sub": "00ujmkLgagxeRrAg20g3", "ver": 1, "jti": "ID.x",
            "amr": ["pwd"], "idp": "00o", "at_hash": "x",
        },
    ),
    "Google": Shape(
        claims={
            "aud": "https://agents.example.com", "azp": "117", "sub": "117869832469324",
            "email": "robot@my-project.iam.gserviceaccount.com", "email_verified": True,
        },
        user_id="117869832469324",
        scopes=set(),
        roles={"robot@my-project.iam.gserviceaccount.com"},
        elsewhere={"aud": "https://billing.example.com"},
        # Made for the right audience, but together with an access token.
        id_token={
            "aud": "https://agents.example.com", "azp": CLIENT["Google"], "sub": "117869832469324",
            "email": "robot@my-project.iam.gserviceaccount.com", "email_verified": True,
            "at_hash": "aUAkJG-u6x4RTWuILWy-CA",
        },
        header={"typ": "JWT"},
    ),
    "Cognito": Shape(
        claims={
            "sub": UUID, "cognito:groups": ["writer"], "client_id": CLIENT["Cognito"],
            "origin_jti": "5a0f", "event_id": "c0", "token_use": "access", "version": 2,
            "scope": "openid agents/threads", "auth_time": 1467142021, "jti": "9c1f", "username": "alice",
        },
        user_id=UUID,
        scopes={"openid", "agents/threads"},
        roles={"writer"},
        elsewhere={"client_id": "another-client-of-the-pool"},
        id_token={
            "sub": UUID, "aud": CLIENT["Cognito"], "token_use": "id", "cognito:groups": ["writer"],
            "at_hash": "x", "cognito:username": "alice",
        },
    ),
}  # fmt: skip


class Provider:
    """An OpenID provider on the loopback interface: discovery, keys, introspection."""

    def __init__(self) -> None:
        self.base = self.issuer = ""
        self.key_names_alg = True
        self.active: dict[str, dict[str, Any]] = {}
        self.app = FastAPI(openapi_url=None, telemetry={"logs": False})
        self.app.get("/keys")(self.keys)
        self.app.post("/{path:path}/introspect")(self.introspect)
        self.app.get("/{path:path}")(self.metadata)

    async def metadata(self, path: str) -> dict[str, Any]:
        wanted = urlsplit(self.issuer).path.strip("/") + "/.well-known/openid-configuration"
        if path != wanted.lstrip("/"):
            raise HTTPException(404)
        algorithms = ["PS256", "RS256", "ES256", "HS256"]
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.base}/keys",
            "id_token_signing_alg_values_supported": algorithms,
        }

    async def keys(self) -> dict[str, Any]:
        own = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
        own = {"kty": "RSA", "n": own["n"], "e": own["e"]}
        signing = {**own, "kid": "sig-1", "use": "sig"}
        if self.key_names_alg:
            signing["alg"] = "RS256"
        other = {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg",
            "kid": "ed",
            "use": "sig",
        }
        return {"keys": [{**own, "kid": "enc", "use": "enc", "alg": "RSA-OAEP"}, other, signing]}

    async def introspect(self, request: Request, path: str) -> dict[str, Any]:
        scheme, _, pair = request.headers["authorization"].partition(" ")
        user, _, password = base64.b64decode(pair).decode().partition(":")
        if (scheme, unquote_plus(user), unquote_plus(password)) != ("Basic", "agents", "s/e:c r3t"):
            raise HTTPException(401)
        form = dict(part.split("=", 1) for part in (await request.body()).decode().split("&"))
        return self.active.get(form["token"], {"active": False})

    def sign(self, claims: dict[str, Any], shape: Shape, *, key: Any = KEY) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "iat": now, "nbf": now, "exp": now + 300, **claims}
        header = {"typ": None, "kid": "sig-1", **shape.header}  # PyJWT leaves out a `typ` of None
        return jwt.encode(claims, key, algorithm="RS256", headers=header)


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """The base URL of `app`; who connects before it has started waits for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    async with served(provider.app) as provider.base:
        yield provider


AGENT = """
import json

SEEN = []

def app(messages, config):
    return json.dumps({"user_id": config["user_id"], "claims": config["user"]})

def authorize(principal, action, resource):
    SEEN.append(principal)
    return True
"""


@pytest.fixture
def make_config(tmp_path, monkeypatch, blocks_of, provider) -> Callable[..., tuple[str, Any]]:
    """The recipe of a section with its provider's host replaced, and the module of its agent."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in PRIVATE:
        monkeypatch.delenv(name, raising=False)

    def make_config(section: str, **changes: Any) -> tuple[Any, str]:
        module = f"recipe_{uuid.uuid4().hex}"
        (tmp_path / f"{module}.py").write_text(AGENT)
        config = json.loads(next(b.text for b in blocks_of(PAGE, section) if b.language == "json"))
        for key in ("issuer", "url"):
            if key in config["auth"]:
                host = re.match(r"https://[^/]+", config["auth"][key])[0]
                config["auth"][key] = config["auth"][key].replace(host, provider.base)
        provider.issuer = config["auth"]["issuer"]
        path = tmp_path / "agentflow.json"
        path.write_text(json.dumps({**config, "agent": f"{module}:app", **changes}))
        return path, module

    return make_config


async def status(client: httpx2.AsyncClient, token: str) -> int:
    answer = await client.get("/threads", headers={"Authorization": f"Bearer {token}"})
    return answer.status_code


@pytest.mark.parametrize("name", SHAPES)
async def test_a_good_token_reaches_the_agent_as_the_recipe_maps_it(name, provider, make_config):
    shape = SHAPES[name]
    provider.key_names_alg = shape.key_names_alg
    path, module = make_config(name)
    config = json.loads(path.read_text()) | {"authorization": f"{module}:authorize"}
    path.write_text(json.dumps(config))
    headers = {"Authorization": f"Bearer {provider.sign(shape.claims, shape)}"}
    async with (
        served(create_app(path)) as url,
        httpx2.AsyncClient(base_url=url, headers=headers, timeout=15) as client,
    ):
        assert (await client.get("/health/ready")).status_code == 200
        thread_id = (await client.post("/threads")).json()["thread_id"]
        answer = await client.post(f"/threads/{thread_id}/messages", json={"content": "Hello"})
    seen = json.loads(answer.json()["message"]["content"])
    assert seen["user_id"] == shape.user_id
    assert shape.claims.items() <= seen["claims"].items()
    principal = __import__(module).SEEN[-1]
    assert principal.id == shape.user_id
    assert (set(principal.scopes), set(principal.roles)) == (shape.scopes, shape.roles)


@pytest.mark.parametrize("name", SHAPES)
async def test_a_token_that_is_not_meant_for_this_server_is_refused(name, provider, make_config):
    shape = SHAPES[name]
    provider.key_names_alg = shape.key_names_alg
    path, _ = make_config(name)
    bad = {
        "another audience": provider.sign(shape.claims | shape.elsewhere, shape),
        "another issuer": provider.sign(shape.claims | {"iss": "https://evil.example.com/"}, shape),
        "another key": provider.sign(shape.claims, shape, key=ANOTHER_KEY),
        "an ID token": provider.sign(shape.id_token, shape),
        "expired": provider.sign(shape.claims | {"exp": int(time.time()) - 1}, shape),
    }
    async with (
        served(create_app(path)) as url,
        httpx2.AsyncClient(base_url=url, timeout=15) as client,
    ):
        found = {why: await status(client, token) for why, token in bad.items()}
    assert found == dict.fromkeys(bad, 401)


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("Entra ID", {"iss": "https://sts.windows.net/11111111-2222-3333-4444-555555555555/"}),
        ("Entra ID", {"ver": "1.0"}),
        ("Google", {"email": "robot@another-project.iam.gserviceaccount.com"}),
        ("Okta", {"uid": ""}),
    ],
)
async def test_what_a_recipe_warns_of_is_refused(name, claims, provider, make_config):
    shape = SHAPES[name]
    path, _ = make_config(name)
    async with (
        served(create_app(path)) as url,
        httpx2.AsyncClient(base_url=url, timeout=15) as client,
    ):
        assert await status(client, provider.sign(shape.claims | claims, shape)) == 401
        assert await status(client, provider.sign(shape.claims, shape)) == 200


async def test_permissions_of_auth0_are_scopes_of_this_server(provider, make_config):
    shape = SHAPES["Auth0"]
    path, _ = make_config("Auth0")
    reader = shape.claims | {"permissions": ["threads:read"]}
    async with (
        served(create_app(path)) as url,
        httpx2.AsyncClient(base_url=url, timeout=15) as client,
    ):
        headers = {"Authorization": f"Bearer {provider.sign(reader, shape)}"}
        assert (await client.get("/threads", headers=headers)).status_code == 200
        refused = await client.post("/threads", headers=headers)
    assert (refused.status_code, refused.json()["scope"]) == (403, "threads:write")


async def test_opaque_tokens_are_asked_about(provider, make_config, monkeypatch):
    monkeypatch.setenv("INTROSPECTION_SECRET", "s/e:c r3t")
    path, _ = make_config("Opaque tokens")
    good = {"active": True, "iss": provider.issuer, "aud": "agents", "sub": "alice", "scope": "a b"}
    provider.active = {
        "good": good,
        "string": good | {"active": "true"},
        "elsewhere": good | {"aud": "billing"},
        "foreign": good | {"iss": "https://evil.example.com"},
        "expired": good | {"exp": int(time.time()) - 1},
    }
    async with (
        served(create_app(path)) as url,
        httpx2.AsyncClient(base_url=url, timeout=15) as client,
    ):
        found = {token: await status(client, token) for token in [*provider.active, "unknown"]}
    assert found == {
        "good": 200, "string": 503, "elsewhere": 401, "foreign": 401, "expired": 401, "unknown": 401
    }  # fmt: skip


async def test_r57_an_opaque_token_may_do_what_its_scope_says(provider, make_config, monkeypatch):
    monkeypatch.setenv("INTROSPECTION_SECRET", "s/e:c r3t")
    path, _ = make_config("Opaque tokens", authorization={"roles": {"writer": ["threads:write"]}})
    scopes = {"nothing": "", "reader": "threads:read", "writer": "threads:write"}
    provider.active = {
        token: {"active": True, "iss": provider.issuer, "aud": "agents", "sub": "a", "scope": scope}
        for token, scope in scopes.items()
    }
    found = {}
    async with (
        served(create_app(path)) as url,
        httpx2.AsyncClient(base_url=url, timeout=15) as client,
    ):
        for token in scopes:
            headers = {"Authorization": f"Bearer {token}"}
            created = await client.post("/threads", headers=headers)
            found[token] = (await status(client, token), created.status_code)
    assert found == {"nothing": (403, 403), "reader": (200, 403), "writer": (403, 200)}


async def test_introspection_with_a_wrong_secret_lets_nobody_in(provider, make_config, monkeypatch):
    monkeypatch.setenv("INTROSPECTION_SECRET", "another secret")
    path, _ = make_config("Opaque tokens")
    async with (
        served(create_app(path)) as url,
        httpx2.AsyncClient(base_url=url, timeout=15) as client,
    ):
        assert await status(client, "good") == 503


async def test_an_issuer_that_is_away_is_named_and_opens_no_door(provider, make_config):
    path, _ = make_config("Keycloak")
    shape, provider.issuer = SHAPES["Keycloak"], f"{provider.base}/realms/moved"
    async with (
        served(create_app(path)) as url,
        httpx2.AsyncClient(base_url=url, timeout=15) as client,
    ):
        ready = await client.get("/health/ready")
        provider.issuer = json.loads(path.read_text())["auth"]["issuer"]
        assert await status(client, provider.sign(shape.claims, shape)) == 503
    assert (ready.status_code, ready.json()["code"]) == (503, "auth_unavailable")
    assert ready.json()["detail"] == f"the keys of {provider.issuer} cannot be had"
