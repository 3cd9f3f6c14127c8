"""auth/oauth.py against a real HTTP server."""

import base64
import json
import logging
import socket
import threading
from urllib.parse import parse_qs

import jwt
import pytest
from fastapi import HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials

ALICE = {"sub": "alice", "email": "alice@example.com", "name": "Alice"}
INVALID = (401, "Invalid OAuth token")
UNAVAILABLE = (503, "The OAuth server is unavailable")


@pytest.fixture
def reply(server, answer):
    def set_reply(value, status=200, **headers):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        server.answer = lambda _: answer(status, body, headers)

    return set_reply


@pytest.fixture
async def make(load, server, clock, monkeypatch):
    monkeypatch.setenv("OAUTH_CLIENT_ID", "agent:1")
    monkeypatch.setenv("OAUTH_CLIENT_SECRET", "s€cret/+ ")
    module, made = load("oauth"), []
    module.time = clock

    def build(kind="userinfo", **options):
        backend = module.OAuth2Auth(**{f"{kind}_url": f"{server.url}/{kind}"}, **options)
        made.append(backend)
        return backend

    yield build
    for backend in made:
        if backend._pool is not None:
            await backend._pool[1].aclose()


async def ask(backend, token="opaque"):
    credential = HTTPAuthorizationCredentials(scheme="Bearer", credentials=token)
    return await backend.authenticate(Response(), credential)


async def refusal(backend, token="opaque"):
    with pytest.raises(HTTPException) as caught:
        await ask(backend, token)
    if caught.value.status_code == 503:
        assert caught.value.headers == {"Retry-After": "5"}
    return caught.value.status_code, caught.value.detail


async def test_userinfo_names_the_user(make, server, reply):
    reply({**ALICE, "picture": "https://example.com/a.png", "roles": ["admin"]})
    assert await ask(make(), "token-1") == {
        "user_id": "alice",
        "email": "alice@example.com",
        "name": "Alice",
        "picture": "https://example.com/a.png",
    }
    seen = server.seen[0]
    assert (seen.method, seen.path) == ("GET", "/userinfo")
    assert seen.headers["authorization"] == "Bearer token-1"


async def test_what_userinfo_does_not_say_is_none(make, reply):
    reply({"sub": "alice"})
    assert await ask(make()) == {"user_id": "alice", "email": None, "name": None, "picture": None}


async def test_introspection_sends_the_token_in_the_body_and_names_the_client(make, server, reply):
    reply({**ALICE, "active": True})
    assert (await ask(make("introspection"), "token-1"))["user_id"] == "alice"
    seen = server.seen[0]
    assert (seen.method, seen.path) == ("POST", "/introspection")
    assert parse_qs(seen.body.decode()) == {
        "token": ["token-1"],
        "token_type_hint": ["access_token"],
    }
    kind, _, login = seen.headers["authorization"].partition(" ")
    assert (kind, base64.b64decode(login)) == ("Basic", b"agent%3A1:s%E2%82%ACcret%2F%2B+")
    assert "token-1" not in str(seen.headers)


@pytest.mark.parametrize("active", [False, None, "true", 1, [True], "missing"])
async def test_only_an_active_that_is_true_counts(make, reply, active):
    reply(ALICE if active == "missing" else {**ALICE, "active": active})
    assert await refusal(make("introspection")) == INVALID


@pytest.mark.parametrize("sub", [None, "", 7, ["alice"]])
@pytest.mark.parametrize("kind", ["userinfo", "introspection"])
async def test_an_answer_without_a_user_is_refused(make, reply, kind, sub):
    reply({"active": True, "sub": sub})
    assert await refusal(make(kind)) == INVALID


@pytest.mark.parametrize(
    ("aud", "accepted"),
    [("agents", True), (["x", "agents"], True), ("x", False), ([], False), (None, False)],
)
async def test_the_audience_is_checked_when_it_is_set(make, reply, aud, accepted):
    reply({**ALICE, "active": True, "aud": aud})
    backend = make("introspection", audience="agents")
    if accepted:
        assert (await ask(backend))["user_id"] == "alice"
    else:
        assert await refusal(backend) == INVALID


@pytest.mark.parametrize(
    ("scope", "accepted"),
    [("agent read", True), ("read agent more", True), ("agent", False), ("", False), (None, False)],
)
async def test_every_required_scope_must_be_there(make, reply, scope, accepted):
    reply({**ALICE, "active": True, "scope": scope})
    backend = make("introspection", scopes=["agent", "read"])
    if accepted:
        assert (await ask(backend))["user_id"] == "alice"
    else:
        assert await refusal(backend) == INVALID


@pytest.mark.parametrize("exp", [0, -1, "tomorrow", True, None, [2e9]])
async def test_an_expired_or_senseless_exp_is_refused(make, reply, exp):
    reply({**ALICE, "active": True, "exp": exp})
    assert await refusal(make("introspection")) == INVALID


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_token_the_server_refuses_is_refused(make, reply, status):
    reply({"error": "invalid_token"}, status)
    assert await refusal(make()) == INVALID


@pytest.mark.parametrize("status", [201, 204, 302, 307, 404, 429, 500, 503])
@pytest.mark.parametrize("kind", ["userinfo", "introspection"])
async def test_any_other_status_is_a_503(make, server, reply, status, kind):
    reply({**ALICE, "active": True}, status, Location=f"{server.url}/elsewhere")
    assert await refusal(make(kind)) == UNAVAILABLE
    assert len(server.seen) == 1, "a redirect is not followed"


async def test_a_refused_client_is_our_problem_not_the_users(make, reply):
    reply({"error": "invalid_client"}, 401)
    assert await refusal(make("introspection")) == UNAVAILABLE


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"alice"', b"null", b"\xff\xfe", b"{"])
async def test_an_answer_that_is_no_json_object_is_a_503(make, reply, body):
    reply(body)
    assert await refusal(make()) == UNAVAILABLE


async def test_an_unreachable_server_is_a_503(load, caplog):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    backend = load("oauth").OAuth2Auth(userinfo_url=f"http://127.0.0.1:{port}/userinfo")
    with caplog.at_level(logging.WARNING):
        assert await refusal(backend, "secret-token") == UNAVAILABLE
    assert "the OAuth server is unavailable: ConnectError" in caplog.text
    assert "secret-token" not in caplog.text
    await backend._pool[1].aclose()


async def test_a_server_that_hangs_is_a_503(make, server, answer):
    release = threading.Event()

    def hang(_):
        release.wait(30)
        return answer()

    server.answer = hang
    try:
        assert await refusal(make(timeout=0.05)) == UNAVAILABLE
    finally:
        release.set()


@pytest.mark.parametrize("token", ["", "two words", "ключ", "a\r\nX-Evil: 1", "=", "a=b"])
async def test_what_cannot_be_a_token_is_never_sent(make, server, token):
    assert await refusal(make(), token) == INVALID
    assert server.seen == []


async def test_an_answer_is_kept_for_a_minute_at_most(make, server, reply, clock):
    reply(ALICE)
    backend = make()
    for _ in range(3):
        await ask(backend)
    clock.now += 59.9
    await ask(backend)
    assert len(server.seen) == 1
    clock.now += 0.1
    reply({}, 401)
    assert await refusal(backend) == INVALID


@pytest.mark.parametrize("kind", ["userinfo", "introspection"])
async def test_an_answer_is_never_kept_beyond_the_tokens_end(make, server, reply, clock, kind):
    token = jwt.encode({"exp": clock.now + 10}, "x" * 32, algorithm="HS256")
    reply({**ALICE, "active": True, "exp": clock.now + 10})
    backend = make(kind)
    await ask(backend, token)
    clock.now += 10
    assert await refusal(backend, token) == INVALID
    assert len(server.seen) == 2


async def test_refusals_are_not_kept(make, reply):
    backend = make()
    reply({}, 401)
    assert await refusal(backend) == INVALID
    reply(ALICE)
    assert (await ask(backend))["user_id"] == "alice"


async def test_each_token_has_its_own_answer(make, server, answer):
    def who(seen):
        user = seen.headers["authorization"].removeprefix("Bearer ")
        return answer(200, json.dumps({"sub": user}).encode())

    server.answer = who
    backend = make()
    for user in ("alice", "bob", "alice", "bob"):
        assert (await ask(backend, user))["user_id"] == user
    assert len(server.seen) == 2


async def test_a_kept_answer_cannot_be_changed_by_its_reader(make, reply):
    reply(ALICE)
    backend = make()
    (await ask(backend))["user_id"] = "mallory"
    (await ask(backend))["user_id"] = "mallory"
    assert (await ask(backend))["user_id"] == "alice"


async def test_the_memory_of_answers_is_bounded(load, make, reply):
    reply(ALICE)
    backend = make()
    module_globals = type(backend)._remember.__globals__
    module_globals["MAX_CACHED"] = 3
    for number in range(10):
        await ask(backend, f"token-{number}")
    assert len(backend._cache) == 3


async def test_connections_are_used_again(make, server, reply):
    reply(ALICE)
    backend = make(cache_seconds=0)
    for _ in range(5):
        await ask(backend)
    assert (len(server.seen), server.connections) == (5, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "set one of the options"),
        ({"userinfo_url": ""}, "set one of the options"),
        ({"userinfo_url": "https://a/", "introspection_url": "https://a/"}, "set one of"),
        ({"userinfo_url": "http://login.example.com/userinfo"}, "https://"),
        ({"userinfo_url": "http://localhost.example.com/userinfo"}, "https://"),
        ({"userinfo_url": "http://127.0.0.1@evil.example.com/"}, "https://"),
        ({"userinfo_url": "ftp://127.0.0.1/"}, "https://"),
        ({"userinfo_url": "https:///userinfo"}, "https://"),
        ({"userinfo_url": "https://a/", "audience": "x"}, "need introspection_url"),
        ({"userinfo_url": "https://a/", "scopes": ["x"]}, "need introspection_url"),
        ({"userinfo_url": "https://a/", "cache_seconds": 61}, "between 0 and 60"),
        ({"introspection_url": "https://a/"}, "OAUTH_CLIENT_ID and OAUTH_CLIENT_SECRET"),
    ],
)
def test_mistakes_stop_the_server(load, monkeypatch, options, message):
    monkeypatch.delenv("OAUTH_CLIENT_ID", raising=False)
    monkeypatch.delenv("OAUTH_CLIENT_SECRET", raising=False)
    with pytest.raises(ValueError, match=message):
        load("oauth").OAuth2Auth(**options)


@pytest.mark.parametrize("url", ["http://localhost:1/u", "http://[::1]:1/u", "https://a.example"])
def test_https_or_loopback_is_accepted(load, url):
    assert load("oauth").OAuth2Auth(userinfo_url=url)
