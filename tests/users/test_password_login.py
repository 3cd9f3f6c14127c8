"""Who is let in with a password, and what it costs to find that out."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.errors import TooManyRequests
from agentflow_server.models import User, UserChange, UserSecrets
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.store_users import make_user
from agentflow_server.users.hashes import Argon2id
from agentflow_server.users.login import find_verified_user
from agentflow_server.users.passwords import Passwords, Verification

CHEAP, DEARER = (Argon2id(memory=memory, passes=1, lanes=1) for memory in (64, 128))
GOOD = "tea kettle sings at noon"


class CountedPasswords(Passwords):
    def __init__(self, parameters: Argon2id = CHEAP) -> None:
        super().__init__(parameters=parameters)
        self.verified = self.hashed = 0
        self.is_busy = False

    async def verify(self, password: str, stored: str | None) -> Verification:
        self.verified += 1
        return await super().verify(password, stored)

    async def hash(self, password: str) -> str:
        self.hashed += 1
        if self.is_busy:
            raise TooManyRequests(retry_after=1)
        return await super().hash(password)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "agentflow.db") as store:
        yield store


@pytest.fixture
async def alice(store: SqliteStore) -> User:
    user = make_user("alice")
    hash_ = await Passwords(parameters=CHEAP).hash(GOOD)
    await store.add_users([(user, UserSecrets(hash_, b"seed")), (make_user("bob"), UserSecrets())])
    return await store.get_user(user.user_id)


async def test_the_right_password_finds_the_user_and_his_second_factor(
    store: SqliteStore, alice: User
) -> None:
    found = await find_verified_user(store, CountedPasswords(), "Alice", GOOD)
    assert found is not None
    assert found[0] == alice
    assert found[1].totp_secret == b"seed"


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("alice", "wrong"),
        ("alice", ""),
        ("alice", GOOD + "\x00"),
        ("alice", "x" * 9999),
        ("nobody", GOOD),
        ("", GOOD),
        ("alice\x00", GOOD),
        ("' OR 1=1 --", GOOD),
        ("bob", GOOD),
        ("bob", ""),
    ],
)
async def test_r64_whoever_is_refused_costs_one_verification(
    store: SqliteStore, alice: User, username: str, password: str
) -> None:
    passwords = CountedPasswords()
    assert await find_verified_user(store, passwords, username, password) is None
    assert (passwords.verified, passwords.hashed) == (1, 0)


async def test_r64_a_disabled_user_is_refused_like_a_wrong_password(
    store: SqliteStore, alice: User
) -> None:
    await store.update_user(alice.user_id, UserChange(disabled=True))
    passwords = CountedPasswords(DEARER)
    assert await find_verified_user(store, passwords, "alice", GOOD) is None
    assert (passwords.verified, passwords.hashed) == (1, 0)
    await store.update_user(alice.user_id, UserChange(disabled=False))
    assert await find_verified_user(store, passwords, "alice", GOOD) is not None


async def stored_hash(store: SqliteStore) -> str:
    found = await store.find_user_by_name("alice")
    assert found is not None
    assert found[1].password_hash is not None
    return found[1].password_hash


async def test_an_outdated_hash_is_replaced_at_the_next_login(
    store: SqliteStore, alice: User
) -> None:
    passwords = CountedPasswords(DEARER)
    for _ in range(2):
        assert await find_verified_user(store, passwords, "alice", GOOD) is not None
    assert passwords.hashed == 1
    assert (await stored_hash(store)).startswith("$argon2id$v=19$m=128,")
    assert await store.get_user(alice.user_id) == alice


async def test_a_login_does_not_fail_because_the_new_hash_has_to_wait(
    store: SqliteStore, alice: User
) -> None:
    passwords = CountedPasswords(DEARER)
    passwords.is_busy = True
    before = await stored_hash(store)
    assert await find_verified_user(store, passwords, "alice", GOOD) is not None
    assert await stored_hash(store) == before


async def test_r65_a_flood_is_told_to_come_back(store: SqliteStore, alice: User) -> None:
    passwords: Any = Passwords(at_once=1, waiting=-1, parameters=CHEAP)
    with pytest.raises(TooManyRequests):
        await find_verified_user(store, passwords, "alice", GOOD)
