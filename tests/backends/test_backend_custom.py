"""auth/custom.py: the template."""

import json

import pytest

TOKEN = "Zk3v-7Qm1Yx_0pLw8TgJd2HsNbUcEfA9"
ALICE = {"id": "alice", "username": "alice", "email": "alice@example.com", "roles": ["user"]}


@pytest.fixture
def backend(load, monkeypatch):
    monkeypatch.setenv("CUSTOM_AUTH_TOKENS", json.dumps({TOKEN: ALICE}))
    return load("custom").MyAuthBackend()


def test_a_known_token_names_its_user(backend, ask):
    assert ask(backend, TOKEN) == {
        "user_id": "alice",
        "username": "alice",
        "email": "alice@example.com",
        "roles": ["user"],
    }


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", "ключ", TOKEN.lower()])
def test_any_other_token_is_refused(backend, refusal, token):
    assert refusal(backend, token) == (401, "Invalid authentication credentials")


def test_verify_token_may_be_filled_in_with_anything(load, ask, monkeypatch):
    monkeypatch.setenv("CUSTOM_AUTH_TOKENS", json.dumps({TOKEN: ALICE}))

    class Mine(load("custom").MyAuthBackend):
        def verify_token(self, token):
            return {**ALICE, "id": token.upper()}

    assert ask(Mine(), "bob")["user_id"] == "BOB"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected a JSON object of users by token"),
        ("", "expected a JSON object of users by token"),
        ("{}", "at least one user"),
        ("[]", "at least one user"),
        ('{"short": {}}', "token 1 has fewer than 22 characters"),
        (json.dumps({TOKEN: {"id": "alice"}}), "user 1 needs id, username, email and roles"),
        (json.dumps({TOKEN: "alice"}), "user 1 needs id, username, email and roles"),
    ],
)
def test_unusable_tokens_stop_the_server(load, monkeypatch, text, message):
    monkeypatch.delenv("CUSTOM_AUTH_TOKENS", raising=False)
    if text is not None:
        monkeypatch.setenv("CUSTOM_AUTH_TOKENS", text)
    with pytest.raises(ValueError, match=message) as caught:
        load("custom").MyAuthBackend()
    assert TOKEN not in str(caught.value)
