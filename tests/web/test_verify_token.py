"""`/verify-token` and `/users/me`: what a caller learns about himself."""

import time
from datetime import UTC, datetime

import httpx2
import pytest

from agentflow_server.models import UserSecrets
from agentflow_server.users.making import make_user

URL = "/verify-token"
ROLES = {"roles": {"reader": ["threads:read"]}}
BACKEND = """
from agentflow_server import BaseAuth

class Nobody(BaseAuth):
    def authenticate(self, res, credential):
        return {}

class Somebody(BaseAuth):
    def authenticate(self, res, credential):
        return {"user_id": 7, "username": "alice"}

def app(messages, config):
    return "here"
"""


@pytest.fixture
def alice():
    return make_user(
        "alice",
        roles=["reader"],
        scopes=["threads:read"],
        claims={"department": "sales"},
        created_at=datetime.now(UTC),
        has_password=True,
    )


@pytest.fixture
async def client_and_app(project, run_app, monkeypatch):
    """A server with API keys and JWTs; its application, to add users."""
    monkeypatch.setenv("JWT_SECRET_KEY", "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6")
    app = project.app(auth=["jwt", "api_key"])
    async with run_app(app) as url, httpx2.AsyncClient(base_url=url, timeout=30) as client:
        yield client, app


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_good_token_is_told_whose_it_is(serve, as_user, method):
    client = await serve(auth="jwt")
    now = int(time.time())
    headers = as_user("alice", preferred_username="Alice", scope="b a", iat=now, exp=now + 60)
    answer = await client.request(method, URL, headers=headers)
    assert answer.status_code == 200
    found = answer.json()
    times = [datetime.fromisoformat(found.pop(name)) for name in ("issued_at", "expires_at")]
    assert [moment.timestamp() for moment in times] == [now, now + 60]
    assert found == {
        "valid": True, "user_id": "alice", "username": "Alice", "scopes": ["a", "b"],
    }  # fmt: skip
    assert answer.headers["cache-control"] == "no-store"


async def test_what_a_token_does_not_say_is_null(serve, as_user):
    client = await serve(auth="jwt")
    found = (await client.get(URL, headers=as_user("alice"))).json()
    assert (found["username"], found["issued_at"], found["scopes"]) == (None, None, [])


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_bad_token_and_none_at_all_are_a_401(serve, as_user, method):
    client = await serve(auth="jwt")
    for headers in ({}, {"Authorization": "Bearer x.y.z"}, as_user("alice", exp=1)):
        answer = await client.request(method, URL, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "valid" not in answer.json()


async def test_no_scope_is_wanted_and_nobody_is_shown_as_somebody_else(serve, as_user):
    client = await serve(auth="jwt", authorization=ROLES)
    assert (await client.get(URL, headers=as_user("alice"))).status_code == 200
    admin = as_user("carol", scope="admin")
    assert (await client.get(f"{URL}?owner=alice", headers=admin)).status_code == 422


async def test_where_nobody_is_asked_for_a_token_none_is_good(serve, project):
    client = await serve()
    headers = {"Authorization": "Bearer anything"}
    assert (await client.get(URL, headers=headers)).status_code == 401
    assert (await client.get("/users/me", headers=headers)).status_code == 404


async def test_a_backend_that_asks_for_nothing_has_verified_nothing(serve, project):
    module = project.module(BACKEND)
    client = await serve(auth={"method": "custom", "path": f"{module}:Nobody"})
    headers = {"Authorization": "Bearer anything"}
    assert (await client.get(URL, headers=headers)).status_code == 401


async def test_a_custom_backends_claims_name_the_user(serve, project):
    module = project.module(BACKEND)
    client = await serve(auth={"method": "custom", "path": f"{module}:Somebody"})
    found = (await client.get(URL, headers={"Authorization": "Bearer anything"})).json()
    assert (found["user_id"], found["username"]) == ("7", "alice")


async def test_a_local_user_is_known_by_name_whatever_his_token_says(
    client_and_app, as_user, alice
):
    client, app = client_and_app
    await app.state.users.add_users([(alice, UserSecrets("$argon2id$hash-of-alice", b"seed"))])
    headers = as_user(alice.user_id, username="mallory")
    assert (await client.get(URL, headers=headers)).json()["username"] == "alice"
    me = await client.get("/users/me", headers=headers)
    assert me.status_code == 200
    shown = {**alice.model_dump(mode="json", exclude={"disabled_at"}), "has_totp": True}
    assert me.json() == shown
    assert "hash-of-alice" not in me.text
    assert "seed" not in me.text


async def test_an_api_key_shows_whose_it_is(client_and_app, alice):
    from agentflow_server.auth.api_key import make_api_key

    client, app = client_and_app
    await app.state.users.add_users([(alice, UserSecrets())])
    text, key, secret_hash = make_api_key(
        alice.user_id, scopes=["threads:read"], created_at=datetime.now(UTC)
    )
    await app._parts.database.credentials.add_api_key(key, secret_hash)
    found = (await client.get(URL, headers={"X-API-Key": text})).json()
    assert (found["username"], found["scopes"]) == ("alice", ["threads:read"])


@pytest.mark.parametrize("user_id", ["alice", "0190d5a2-8c4e-7cc3-9a6f-0d2f5e1b7a11"])
async def test_who_is_no_local_user_is_told_so(serve, as_user, user_id):
    client = await serve(auth="jwt")
    answer = await client.get("/users/me", headers=as_user(user_id))
    assert (answer.status_code, answer.json()["code"]) == (404, "no_local_user")
    assert (await client.get("/users/me")).status_code == 401
