"""Tokens that outlive their process, and belong to several processes at once."""

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import agentflow_server
from agentflow_server.client import (
    AgentflowClient,
    AsyncAgentflowClient,
    KeyringTokens,
    LoginFailed,
    MemoryTokens,
    Password,
    RefreshToken,
    Token,
    TokenFile,
)

PROCESS = """
import sys
from agentflow_server.client import AgentflowClient, RefreshToken, TokenFile
server, tokens, file = sys.argv[1:]
with AgentflowClient(server, RefreshToken(tokens, store=TokenFile(file))) as client:
    sys.stdin.readline()
    print(len(client.list_agents()))
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "tokens.json"


def stored(path, issuer, **more):
    """A login that was made earlier, whose access token is over."""
    token = Token(
        "old", expires_at=1.0, refresh_token=issuer.new_refresh_token(), source=f"{issuer.url} "
    )
    TokenFile(path).save(token)
    return token


async def test_a_login_outlives_its_process(connect, served, issuer, path):
    login = RefreshToken(issuer.url, issuer.new_refresh_token(), store=TokenFile(path))
    await connect(served.url, login)("list_agents")
    again = RefreshToken(issuer.url, store=TokenFile(str(path)))
    await connect(served.url, again)("list_agents")
    assert len(issuer.grants) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}.lock"}


def test_processes_that_renew_one_login_at_once_do_it_once(served, issuer, path):
    stored(path, issuer)
    issuer.slow = 0.3
    environment = {**os.environ, "PYTHONPATH": str(Path(agentflow_server.__file__).parents[1])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, served.url, issuer.url, str(path)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in processes] == ["3\n"] * 4
    assert len(issuer.grants) == 1
    assert not issuer.is_family_revoked


async def test_a_token_that_another_process_has_renewed_is_used(connect, served, issuer, path):
    first = connect(served.url, RefreshToken(issuer.url, store=TokenFile(path)), leeway=0)
    stored(path, issuer)
    await first("list_agents")
    old = TokenFile(path).load()
    fresh = Token(
        (await first("get_authenticated_headers"))["Authorization"].removeprefix("Bearer "),
        source=old.source,
    )
    revoked = Token("revoked-meanwhile", source=old.source)
    TokenFile(path).save(revoked)
    second = connect(served.url, RefreshToken(issuer.url, store=TokenFile(path)))
    await second("get_authenticated_headers")
    TokenFile(path).save(fresh)
    await second("list_agents")
    assert len(issuer.grants) == 1


async def test_a_refresh_token_that_is_newer_than_a_dead_one_is_used(connect, served, issuer, path):
    dead = Token("old", expires_at=1.0, refresh_token="dead", source=f"{issuer.url} ")
    TokenFile(path).save(dead)
    login = RefreshToken(issuer.url, issuer.new_refresh_token(), store=TokenFile(path))
    with pytest.raises(LoginFailed):
        await connect(served.url, login)("list_agents")  # this server takes a dead one for theft
    assert [form["refresh_token"] for form in issuer.grants] == ["dead", login.refresh_token]
    issuer.is_family_revoked = False
    again = RefreshToken(issuer.url, issuer.new_refresh_token(), store=TokenFile(path))
    issuer.refresh_tokens["dead"] = "alice"
    await connect(served.url, again)("list_agents")
    assert TokenFile(path).load().refresh_token != "dead"


async def test_a_login_waits_while_somebody_else_renews_it(served, issuer, path, monkeypatch):
    stored(path, issuer)
    release = TokenFile(path).try_lock()
    assert TokenFile(path).try_lock() is None
    async with AsyncAgentflowClient(
        served.url, RefreshToken(issuer.url, store=TokenFile(path))
    ) as client:
        waiting = asyncio.create_task(client.list_agents())
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        assert done == set()
        release()
        assert await waiting
        release = TokenFile(path).try_lock()
        monkeypatch.setattr("agentflow_server.client.keeper.LOCK_SECONDS", 0.05)
        monkeypatch.setattr("agentflow_server.client.tokens.now", lambda: 1e11)
        with pytest.raises(LoginFailed, match="too long"):
            await client.list_agents()
        release()


def test_the_lock_is_given_back_when_a_login_fails(served, issuer, path):
    store = TokenFile(path)
    with (
        AgentflowClient(served.url, Password(issuer.url, "alice", "no", store=store)) as client,
        pytest.raises(LoginFailed),
    ):
        client.list_agents()
    release = store.try_lock()
    assert release is not None
    release()


async def test_the_token_of_another_login_is_not_used(connect, served, issuer, path):
    alice = Password(issuer.url, "alice", "correct horse", store=TokenFile(path))
    await connect(served.url, alice)("list_agents")
    before = path.read_bytes()
    for other in (
        Password(issuer.url, "bob", "x", store=TokenFile(path)),
        RefreshToken(issuer.url + "/elsewhere", store=TokenFile(path)),
    ):
        with pytest.raises(LoginFailed, match="another login") as caught:
            await connect(served.url, other)("list_agents")
        assert caught.value.code == "token_store"
    assert path.read_bytes() == before
    assert len(issuer.grants) == 1


def test_a_file_that_others_can_read_is_refused(path, issuer):
    stored(path, issuer)
    path.chmod(0o644)
    with pytest.raises(LoginFailed, match="chmod 600"):
        TokenFile(path).load()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"access_token": 5}', '{"access_token": "a b"}'])
def test_a_file_that_holds_something_else_is_refused_without_showing_it(path, text):
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(LoginFailed):
        TokenFile(path).load()


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    store = TokenFile(tmp_path / "file" / "tokens.json")
    for attempt in (store.try_lock, store.load, lambda: store.save(Token("x"))):
        with pytest.raises(LoginFailed, match="file") as caught:
            attempt()
        assert caught.value.code == "token_store"
    assert str(tmp_path) in repr(store)


def test_half_a_file_is_never_left(path, monkeypatch):
    TokenFile(path).save(Token("whole"))

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(LoginFailed, match="disk full"):
        TokenFile(path).save(Token("half"))
    assert TokenFile(path).load().access_token == "whole"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_memory_has_a_lock_of_its_own():
    store = MemoryTokens()
    release = store.try_lock()
    assert store.try_lock() is None
    release()
    assert store.load() is None
    store.save(Token("x"))
    assert store.load() == Token("x")


class TestKeyring:
    @pytest.fixture(autouse=True)
    def _ring(self, monkeypatch, tmp_path):
        keyring = pytest.importorskip("keyring")

        class Ring(keyring.backend.KeyringBackend):
            priority = 1

            def __init__(self):
                self.entries = {}
                self.is_locked = False

            def get_password(self, service, username):
                if self.is_locked:
                    raise keyring.errors.KeyringLocked("locked")
                return self.entries.get((service, username))

            def set_password(self, service, username, password):
                if self.is_locked:
                    raise keyring.errors.KeyringLocked("locked")
                self.entries[service, username] = password

            def delete_password(self, service, username):
                del self.entries[service, username]

        monkeypatch.setenv("HOME", str(tmp_path))
        before = keyring.get_keyring()
        self.ring = Ring()
        keyring.set_keyring(self.ring)
        yield
        keyring.set_keyring(before)

    async def test_a_login_is_kept_in_the_keyring(self, connect, served, issuer):
        for _ in range(2):
            login = Password(
                issuer.url, "alice", "correct horse", store=KeyringTokens("agentflow", "alice")
            )
            await connect(served.url, login)("list_agents")
        assert len(issuer.grants) == 1
        assert list(self.ring.entries) == [("agentflow", "alice")]

    def test_a_keyring_that_is_locked_or_holds_something_else_is_an_error(self):
        store = KeyringTokens("agentflow", "alice")
        self.ring.entries["agentflow", "alice"] = "nonsense"
        with pytest.raises(LoginFailed, match="no token"):
            store.load()
        self.ring.is_locked = True
        with pytest.raises(LoginFailed, match="locked"):
            store.load()
        with pytest.raises(LoginFailed, match="locked"):
            store.save(Token("x"))
        assert "alice" in repr(store)


def test_without_the_package_a_keyring_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(LoginFailed, match=r"agentflow-server\[keyring\]"):
        KeyringTokens("agentflow", "alice")
