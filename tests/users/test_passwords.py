"""Hashing and verifying: what it costs, how many at once, and what an old hash is worth."""

import asyncio
import re
import sys
import threading
from typing import Any

import pytest

from agentflow_server.errors import ConfigError, InvalidRequest, TooManyRequests
from agentflow_server.users import open_passwords
from agentflow_server.users.hashes import (
    PARAMETERS,
    Argon2id,
    check_foreign_hash,
    make_dummy_hash,
)
from agentflow_server.users.passwords import AT_ONCE, WAITING, Passwords

CHEAP = Argon2id(memory=64, passes=1, lanes=1)
GOOD = "tea kettle sings at noon"


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(parameters=CHEAP)


async def test_r63_a_hash_is_argon2id_as_owasp_has_it_with_a_salt_of_its_own() -> None:
    passwords = Passwords()
    first, second = await passwords.hash(GOOD), await passwords.hash(GOOD)
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first.split("$")[4:] != second.split("$")[4:]
    assert await passwords.verify(GOOD, first) == (True, False)
    assert await passwords.verify(GOOD + " ", first) == (False, False)


@pytest.mark.parametrize(
    ("password", "other"),
    [
        (GOOD, GOOD.upper()),
        (GOOD, f" {GOOD}"),
        ("é" * 20, "e\u0301" * 20),
        ("x" * 1024, "x" * 1023 + "y"),
        ("p" * 72 + "a", "p" * 72 + "b"),  # bcrypt reads 72 bytes
    ],
)
async def test_r63_every_byte_of_a_password_counts(
    passwords: Passwords, password: str, other: str
) -> None:
    stored = await passwords.hash(password)
    assert (await passwords.verify(password, stored)).is_right
    assert not (await passwords.verify(other, stored)).is_right


@pytest.mark.parametrize("password", ["", "x" * 1025, "a\x00b", "a\ud800"])
async def test_r63_what_cannot_be_a_password_is_not_hashed_and_never_right(
    passwords: Passwords, password: str
) -> None:
    with pytest.raises(InvalidRequest):
        await passwords.hash(password)
    stored = await passwords.hash(GOOD)
    assert await passwords.verify(password, stored) == (False, False)
    assert await passwords.verify(password, None) == (False, False)


@pytest.mark.parametrize("stored", ["", "nonsense", "$2b$12$abc", "$argon2id$v=19$m=64", "$" * 99])
async def test_a_hash_that_is_none_fits_no_password(passwords: Passwords, stored: str) -> None:
    assert await passwords.verify(GOOD, stored) == (False, False)


async def test_a_hash_of_other_costs_is_right_and_outdated(passwords: Passwords) -> None:
    other = await Passwords(parameters=Argon2id(memory=128, passes=1, lanes=1)).hash(GOOD)
    assert await passwords.verify(GOOD, other) == (True, True)
    assert await passwords.verify("wrong", other) == (False, False)


async def test_r64_nobody_costs_the_same_work_as_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    passwords = Passwords(parameters=CHEAP)
    stored = await passwords.hash(GOOD)
    verify = passwords._hasher.verify

    def record(password: Any, found: Any) -> bool:
        tried.append(found)
        return verify(password, found)

    monkeypatch.setattr(passwords._hasher, "verify", record)
    assert (await passwords.verify(GOOD, stored)).is_right
    assert not (await passwords.verify("wrong", stored)).is_right
    assert not (await passwords.verify(GOOD, None)).is_right
    shapes = [re.sub(r"[A-Za-z0-9+/]{22,}", "*", hash_) for hash_ in tried]
    assert shapes == ["$argon2id$v=19$m=64,t=1,p=1$*$*"] * 3
    assert [len(hash_) for hash_ in tried] == [len(stored)] * 3


class Gate:
    """Holds every hash until it is opened, and counts them."""

    def __init__(self, passwords: Passwords) -> None:
        self.opened = threading.Event()
        self.running = self.most = 0
        self._lock = threading.Lock()
        passwords._hasher.hash = self._hash  # type: ignore[method-assign]

    def _hash(self, password: object, *, salt: object = None) -> str:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.opened.wait(30)
        with self._lock:
            self.running -= 1
        return "hash"


async def test_r65_a_flood_waits_in_a_short_line_and_the_rest_is_sent_away() -> None:
    passwords = Passwords(at_once=2, waiting=3, parameters=CHEAP)
    gate = Gate(passwords)
    flood = [asyncio.create_task(passwords.hash(GOOD)) for _ in range(50)]
    async with asyncio.timeout(10):
        while sum(task.done() for task in flood) < 45:
            await asyncio.sleep(0)
    gate.opened.set()
    answers = await asyncio.gather(*flood, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, TooManyRequests)]
    assert (len(refused), answers.count("hash")) == (45, 5)
    assert {error.retry_after for error in refused} == {1}
    assert gate.most <= 2
    assert await passwords.hash(GOOD) == "hash"


async def test_r65_who_goes_away_keeps_his_place_until_the_work_has_ended() -> None:
    passwords = Passwords(at_once=1, waiting=0, parameters=CHEAP)
    gate = Gate(passwords)
    gone = asyncio.create_task(passwords.hash(GOOD))
    async with asyncio.timeout(10):
        while not gate.running:
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait({gone})
        with pytest.raises(TooManyRequests):
            await passwords.hash(GOOD)
        gate.opened.set()
        while True:
            try:
                assert await passwords.hash(GOOD) == "hash"
                break
            except TooManyRequests:
                await asyncio.sleep(0)


async def test_r65_who_is_cancelled_in_the_line_leaves_it() -> None:
    passwords = Passwords(at_once=1, waiting=1, parameters=CHEAP)
    gate = Gate(passwords)
    first, second = (asyncio.create_task(passwords.hash(GOOD)) for _ in range(2))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait({second})
    third = asyncio.create_task(passwords.hash(GOOD))
    await asyncio.sleep(0)
    assert not third.done()
    gate.opened.set()
    assert set(await asyncio.gather(first, third)) == {"hash"}


def test_the_bounds_are_small_enough_for_a_small_machine() -> None:
    assert 1 <= AT_ONCE <= 4
    assert AT_ONCE * PARAMETERS.memory <= 80_000
    assert WAITING <= 64


@pytest.mark.parametrize("name", ["pwdlib", "argon2"])
def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'agentflow-server\[passwords\]'"):
        open_passwords()


def test_with_the_extra_it_opens() -> None:
    assert isinstance(open_passwords(), Passwords)


# Hashes of other programs


SALT, DIGEST = "c29tZXNhbHRzb21lc2FsdA", "RdescudvJCsgt3ub+b4dWRWJTmaaJObGcRdescudvJA"


@pytest.mark.parametrize("costs", ["m=19456,t=2,p=1", "m=65536,t=3,p=4", "m=7168,t=5,p=1"])
def test_a_good_hash_of_another_program_is_taken(costs: str) -> None:
    check_foreign_hash(f"$argon2id$v=19${costs}${SALT}${DIGEST}")
    check_foreign_hash(make_dummy_hash(PARAMETERS))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected an Argon2id hash"),
        ("secret", "expected an Argon2id hash"),
        (f"$argon2i$v=19$m=19456,t=2,p=1${SALT}${DIGEST}", "expected an Argon2id hash"),
        (f"$argon2d$v=19$m=19456,t=2,p=1${SALT}${DIGEST}", "expected an Argon2id hash"),
        (f"$argon2id$m=19456,t=2,p=1${SALT}${DIGEST}", "expected an Argon2id hash"),
        (f"$argon2id$v=16$m=19456,t=2,p=1${SALT}${DIGEST}", "expected an Argon2id hash"),
        (f"$argon2id$v=19$m=19456,t=2,p=1${SALT}${DIGEST}\n", "expected an Argon2id hash"),
        (f"$argon2id$v=19$m=19456,t=2,p=1$ab${DIGEST}", "expected an Argon2id hash"),
        (f"$argon2id$v=19$m=99999999,t=2,p=1${SALT}${DIGEST}", "expected an Argon2id hash"),
        (f"$argon2id$v=19$m=8,t=1,p=1${SALT}${DIGEST}", "too cheap"),
        (f"$argon2id$v=19$m=7168,t=4,p=1${SALT}${DIGEST}", "too cheap"),
        (f"$argon2id$v=19$m=1024,t=50,p=1${SALT}${DIGEST}", "too cheap"),
        (f"$argon2id$v=19$m=4194304,t=1,p=1${SALT}${DIGEST}", "too dear"),
        (f"$argon2id$v=19$m=262144,t=99,p=1${SALT}${DIGEST}", "too dear"),
        (f"$argon2id$v=19$m=65536,t=3,p=99${SALT}${DIGEST}", "too dear"),
        (f"$argon2id$v=19$m=19456,t=2,p=1${SALT[:-1]}x${DIGEST}", "not base64"),
        (f"$argon2id$v=19$m=19456,t=2,p=1${SALT}${DIGEST}ab", "not base64"),
    ],
)
def test_r63_a_bad_hash_of_another_program_is_refused_and_not_repeated(
    text: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        check_foreign_hash(text)
    assert SALT not in str(caught.value)
    assert DIGEST not in str(caught.value)
