"""auth/database.py: a JWT and a row in a real SQLite file."""

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest
from sqlalchemy.orm import Session

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'users.db'}"


@pytest.fixture
def module(load):
    return load("database")


@pytest.fixture
def backend(module, jwt_secret, url):
    """On a database with alice (two roles), bob (inactive) and carol (no role)."""
    backend = module.DatabaseAuth(database_url=url, create_tables=True)
    reader = module.Role(name="reader", permissions=["read"])
    writer = module.Role(name="writer", permissions=["write", "read"])
    with Session(backend._engine) as session, session.begin():
        for name, active, roles in [
            ("alice", True, [reader, writer]),
            ("bob", False, [reader]),
            ("carol", True, []),
        ]:
            email = f"{name}@example.com"
            session.add(
                module.User(id=name, username=name, email=email, is_active=active, roles=roles)
            )
    yield backend
    backend._engine.dispose()


@pytest.fixture
def token(jwt_secret):
    def sign(user_id="alice", *, key=jwt_secret, algorithm="HS256", **claims):
        payload = {"user_id": user_id, "exp": time.time() + 60, **claims}
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(payload, key, algorithm=algorithm)

    return sign


def test_a_user_is_what_the_database_says(backend, token, ask):
    assert ask(backend, token(email="forged@example.com", roles=["admin"])) == {
        "user_id": "alice",
        "username": "alice",
        "email": "alice@example.com",
        "roles": ["reader", "writer"],
        "permissions": ["read", "write"],
    }
    assert ask(backend, token("carol"))["permissions"] == []


@pytest.mark.parametrize("user_id", ["bob", "nobody", "", "ALICE", "alice' OR '1'='1"])
def test_inactive_and_unknown_users_are_refused(backend, token, refusal, user_id):
    assert refusal(backend, token(user_id)) == (401, "User not found or inactive")


def test_a_user_set_inactive_is_refused_from_the_next_request(backend, module, token, ask, refusal):
    assert ask(backend, token())["user_id"] == "alice"
    with Session(backend._engine) as session, session.begin():
        session.get(module.User, "alice").is_active = False
    assert refusal(backend, token()) == (401, "User not found or inactive")


def test_an_expired_token_says_so(backend, token, refusal):
    assert refusal(backend, token(exp=time.time() - 1)) == (401, "Token has expired")


def test_a_forged_expired_token_does_not(backend, token, refusal):
    forged = token(exp=time.time() - 1, key="another-key-of-thirty-two-bytes-0123456789")
    assert refusal(backend, forged) == (401, "Invalid token")


@pytest.mark.parametrize("claims", [{"exp": None}, {"nbf": 2e9}, {"aud": "x"}, {"exp": "soon"}])
def test_claims_that_forbid_it_are_obeyed(backend, token, refusal, claims):
    assert refusal(backend, token(**claims)) == (401, "Invalid token")


@pytest.mark.parametrize("user_id", [None, 1, True, ["alice"], {"id": "alice"}])
def test_a_user_id_that_is_no_string_is_refused(backend, token, refusal, user_id):
    assert refusal(backend, token(user_id)) == (401, "Invalid token")


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "x",
        "a.b.c",
        "ключ.ключ.ключ",
        part({"alg": "none"}) + "." + part({"user_id": "alice", "exp": 2e9}) + ".",
        part({"alg": ["HS256"]}) + "." + part({"user_id": "alice", "exp": 2e9}) + ".AAAA",
        part({"alg": "RS256"}) + "." + part({"user_id": "alice", "exp": 2e9}) + ".AAAA",
        base64.urlsafe_b64encode(b"[" * 100_000).decode() + ".e30.AAAA",
    ],
)
def test_hostile_tokens_are_invalid_and_nothing_worse(backend, refusal, hostile):
    assert refusal(backend, hostile) == (401, "Invalid token")


def test_issuer_and_audience_are_required_once_they_are_set(
    backend, token, ask, refusal, monkeypatch
):
    monkeypatch.setenv("JWT_ISSUER", "https://login.example.com")
    monkeypatch.setenv("JWT_AUDIENCE", "agents")
    named = token(iss="https://login.example.com", aud="agents")
    assert ask(backend, named)["user_id"] == "alice"
    assert refusal(backend, token()) == (401, "Invalid token")


@pytest.mark.parametrize("secret", [None, "", "short", "x" * 64])
def test_a_weak_secret_stops_the_server(module, monkeypatch, url, secret):
    monkeypatch.delenv("JWT_SECRET_KEY", raising=False)
    if secret is not None:
        monkeypatch.setenv("JWT_SECRET_KEY", secret)
    with pytest.raises(ValueError, match=r"JWT_SECRET_KEY: 32 random bytes .* `agentflow secret`"):
        module.DatabaseAuth(database_url=url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "ArgumentError"),
        ("nonsense", "ArgumentError"),
        ("nosuchdatabase://u:hunter2@localhost/x", "NoSuchModuleError"),
        ("sqlite:////no/such/folder/users.db", "OperationalError"),
        ("sqlite+aiosqlite:////no/such/users.db", "ImportError|ModuleNotFound|MissingGreenlet"),
    ],
)
def test_an_unusable_database_stops_the_server(module, jwt_secret, url, message):
    with pytest.raises(ValueError, match=message) as caught:
        module.DatabaseAuth(database_url=url)
    assert "hunter2" not in str(caught.value)


def test_missing_tables_stop_the_server(module, jwt_secret, url):
    with pytest.raises(ValueError, match="the database has no table 'roles'"):
        module.DatabaseAuth(database_url=url)


def test_a_database_that_breaks_lets_nobody_in(backend, module, token, ask):
    module.Model.metadata.drop_all(backend._engine)
    with pytest.raises(Exception, match="no such table") as caught:
        ask(backend, token())
    assert "alice" not in str(caught.value)


def test_a_user_added_on_the_command_line_gets_in(module, jwt_secret, url, token, ask):
    command = [sys.executable, "-m", "auth.database", url, "dave", "dave@example.com"]
    subprocess.run(command, cwd=CHECKOUT, env=os.environ, check=True)
    backend = module.DatabaseAuth(database_url=url)
    assert ask(backend, token("dave"))["email"] == "dave@example.com"
    backend._engine.dispose()
