"""auth/api_key.py: hashed keys from a file or from the environment."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

KEY = "agentflow_Zk3v-7Qm1Yx_0pLw8TgJd2HsNbUcEfA9iVoX6tZ"
OTHER = "agentflow_other-7Qm1Yx_0pLw8TgJd2HsNbUcEfA9iVoX"
CHECKOUT = Path(__file__).resolve().parents[2]


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def entry(**more):
    return {"user_id": "alice", "name": "Alice's laptop", "permissions": ["read"], **more}


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({digest(OTHER): entry(user_id="bob"), digest(KEY): entry()}))
    return path


@pytest.fixture
def backend(load, keys_file):
    return load("api_key").APIKeyAuth(keys_file=str(keys_file))


def test_a_key_names_its_user(backend, ask):
    assert ask(backend, KEY) == entry()
    assert ask(backend, OTHER)["user_id"] == "bob"


@pytest.mark.parametrize("key", ["", "x", KEY[:-1], KEY + "=", "ключ", digest(KEY)])
def test_any_other_key_is_refused(backend, refusal, key):
    assert refusal(backend, key) == (401, "Invalid API key")


def test_a_deleted_entry_is_refused_at_once(backend, keys_file, ask, refusal):
    assert ask(backend, KEY) is not None
    keys_file.write_text(json.dumps({digest(OTHER): entry(user_id="bob")}))
    assert refusal(backend, KEY) == (401, "Invalid API key")
    assert ask(backend, OTHER)["user_id"] == "bob"


def test_a_new_entry_counts_at_once(backend, keys_file, ask):
    keys_file.write_text(json.dumps({digest("a-new-key"): entry(user_id="carol")}))
    assert ask(backend, "a-new-key")["user_id"] == "carol"


@pytest.mark.parametrize("broken", ["{", None])
def test_a_broken_or_missing_file_lets_nobody_in(backend, keys_file, ask, broken):
    keys_file.unlink()
    if broken is not None:
        keys_file.write_text(broken)
    with pytest.raises((ValueError, OSError)):
        ask(backend, KEY)


def test_an_expired_key_is_refused(load, monkeypatch, ask, refusal):
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    keys = {digest(KEY): entry(expires=past), digest(OTHER): entry(expires=future)}
    monkeypatch.setenv("API_KEYS", json.dumps(keys))
    backend = load("api_key").APIKeyAuth()
    assert refusal(backend, KEY) == (401, "Invalid API key")
    assert ask(backend, OTHER) == entry()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("", "set the option keys_file, or API_KEYS"),
        ("{", "expected a JSON object"),
        ("5", "expected a JSON object"),
        (json.dumps({KEY: entry()}), "entry 1 is not named by a SHA-256"),
        (json.dumps({digest(KEY).upper(): entry()}), "entry 1 is not named by a SHA-256"),
        (json.dumps({digest(KEY): {"user_id": "alice"}}), "entry 1 needs user_id, name"),
        (json.dumps({digest(KEY): entry(user_id="")}), "entry 1 needs user_id, name"),
        (json.dumps({digest(KEY): entry(permissions="read")}), "entry 1 needs user_id, name"),
        (json.dumps({digest(KEY): entry(expires="soon")}), "expires needs a date"),
        (json.dumps({digest(KEY): entry(expires="2027-01-31")}), "expires needs a date"),
        (json.dumps({digest(KEY): entry(expires=5)}), "expires needs a date"),
    ],
)
def test_unusable_keys_stop_the_server(load, monkeypatch, keys, message):
    monkeypatch.setenv("API_KEYS", keys)
    with pytest.raises(ValueError, match=message) as caught:
        load("api_key").APIKeyAuth()
    assert KEY not in str(caught.value)


def test_a_relative_path_starts_at_the_projects_folder(load, keys_file, tmp_path, ask):
    (tmp_path / "auth").mkdir()
    shutil.copy(CHECKOUT / "auth/api_key.py", tmp_path / "auth")
    backend = load("api_key", project=tmp_path).APIKeyAuth(keys_file=keys_file.name)
    assert ask(backend, KEY) == entry()


def test_a_missing_file_is_named(load, tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*nothing\.json"):
        load("api_key").APIKeyAuth(keys_file=str(tmp_path / "nothing.json"))


def test_a_printed_key_works_with_its_printed_entry(load, monkeypatch, ask):
    command = [sys.executable, "-m", "auth.api_key", "alice"]
    printed = subprocess.run(
        command, cwd=CHECKOUT, env=os.environ, capture_output=True, text=True, check=True
    )
    key, keys = printed.stdout.splitlines()
    monkeypatch.setenv("API_KEYS", keys)
    assert ask(load("api_key").APIKeyAuth(), key)["user_id"] == "alice"
    assert len(key) - len("agentflow_") >= 43
