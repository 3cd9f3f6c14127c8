"""What every CredentialStore has to get right, as tests to inherit."""
# ruff: noqa: S101 - asserting is what a suite is for

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentflow_server.errors import IdTaken
from agentflow_server.interfaces import CredentialStore
from agentflow_server.models import ApiKey, Revocation

ALICE, BOB = "alice", "bob"
HASH = bytes(range(32))

# Near the clock's time, because a store may throw away what has expired.
NOW = float(int(time.time()))
START = datetime.fromtimestamp(NOW, UTC)


def make_key(key_id: str = "k1", user_id: str = ALICE, **changes: Any) -> ApiKey:
    values: dict[str, Any] = {"name": None, "scopes": [], "created_at": START}
    return ApiKey(key_id=key_id, user_id=user_id, **(values | changes))


def of_user(user_id: str = ALICE, **changes: Any) -> Revocation:
    return replace(Revocation(at=NOW, expires_at=NOW + 3600, user_id=user_id), **changes)


def of_token(name: str = "t1", **changes: Any) -> Revocation:
    return replace(Revocation(at=NOW, expires_at=NOW + 3600, token_id=name), **changes)


class CredentialStoreSuite:
    """Subclass it, give it your store, opened and empty, and run pytest:

    class TestMyCredentials(CredentialStoreSuite):
        @pytest.fixture
        async def credentials(self, tmp_path):
            async with MyStore(tmp_path / "my.db") as store:
                yield store
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    async def credentials(self) -> CredentialStore:
        raise NotImplementedError("override this fixture")

    async def test_a_key_comes_back_as_it_was(self, credentials: CredentialStore) -> None:
        full = make_key(
            name='Grüße "quoted" 世界',
            scopes=["threads:read", "admin"],
            created_at=START + timedelta(microseconds=1),
            expires_at=START + timedelta(days=90),
            revoked_at=START + timedelta(seconds=1),
            last_used_at=START + timedelta(seconds=2),
        )
        await credentials.add_api_key(full, HASH)
        await credentials.add_api_key(make_key("k2"), b"\x00\xff" * 16)
        assert await credentials.find_api_key("k1") == (full, HASH)
        assert await credentials.find_api_key("k2") == (make_key("k2"), b"\x00\xff" * 16)

    @pytest.mark.parametrize("key_id", ["", "K1", "k", "k1 ", "%", "k1\x00", "' OR '1'='1"])
    async def test_only_the_exact_id_finds_a_key(
        self, credentials: CredentialStore, key_id: str
    ) -> None:
        await credentials.add_api_key(make_key("k1"), HASH)
        assert await credentials.find_api_key(key_id) is None

    async def test_an_id_is_taken_once(self, credentials: CredentialStore) -> None:
        await credentials.add_api_key(make_key(), HASH)
        with pytest.raises(IdTaken):
            await credentials.add_api_key(make_key(user_id=BOB), bytes(32))
        assert await credentials.find_api_key("k1") == (make_key(), HASH)

    async def test_keys_are_listed_oldest_first(self, credentials: CredentialStore) -> None:
        later = START + timedelta(seconds=1)
        for key in (make_key("c", created_at=later), make_key("a"), make_key("b", BOB)):
            await credentials.add_api_key(key, HASH)
        assert [key.key_id for key in await credentials.list_api_keys()] == ["a", "b", "c"]
        assert [key.key_id for key in await credentials.list_api_keys(ALICE)] == ["a", "c"]
        assert list(await credentials.list_api_keys("nobody")) == []

    async def test_a_revoked_key_keeps_its_first_time(self, credentials: CredentialStore) -> None:
        await credentials.add_api_key(make_key(), HASH)
        await credentials.add_api_key(make_key("k2"), HASH)
        assert await credentials.revoke_api_key("k1", NOW + 1)
        assert await credentials.revoke_api_key("k1", NOW + 2)
        found = await credentials.find_api_key("k1")
        assert found == (make_key(revoked_at=START + timedelta(seconds=1)), HASH)
        assert await credentials.find_api_key("k2") == (make_key("k2"), HASH)

    async def test_an_unknown_key_cannot_be_revoked(self, credentials: CredentialStore) -> None:
        assert not await credentials.revoke_api_key("k1", NOW)
        assert list(await credentials.list_api_keys()) == []

    async def test_the_last_use_never_moves_back(self, credentials: CredentialStore) -> None:
        await credentials.add_api_key(make_key("k1"), HASH)
        await credentials.add_api_key(make_key("k2"), HASH)
        await credentials.touch_api_keys({"k1": NOW + 2, "k2": NOW + 2, "gone": NOW})
        await credentials.touch_api_keys({"k1": NOW + 1, "k2": NOW + 3})
        await credentials.touch_api_keys({})
        used = {key.key_id: key.last_used_at for key in await credentials.list_api_keys()}
        assert used == {
            "k1": START + timedelta(seconds=2),
            "k2": START + timedelta(seconds=3),
        }

    async def test_revocations_come_back_as_they_were(self, credentials: CredentialStore) -> None:
        wanted = [
            of_user(at=NOW + 0.5),
            of_user(BOB),
            of_token(),
            of_token(issuer="https://id.example.com"),
            of_token("t2"),
        ]
        for revocation in wanted:
            await credentials.add_revocation(revocation)
        assert set(await credentials.list_revocations(NOW)) == set(wanted)

    async def test_revoking_twice_is_the_same_as_once(self, credentials: CredentialStore) -> None:
        for revocation in (of_user(), of_token(), of_user(), of_token()):
            await credentials.add_revocation(revocation)
        listed = await credentials.list_revocations(NOW)
        assert sorted(listed, key=str) == sorted([of_user(), of_token()], key=str)

    @pytest.mark.parametrize("first", [0, 1])
    async def test_a_later_revocation_weakens_no_earlier_one(
        self, credentials: CredentialStore, first: int
    ) -> None:
        both = (of_user(at=NOW, expires_at=NOW + 9900), of_user(at=NOW + 9, expires_at=NOW + 5000))
        for revocation in (both[first], both[1 - first]):
            await credentials.add_revocation(revocation)
        listed = await credentials.list_revocations(NOW)
        assert max(entry.at for entry in listed) == NOW + 9
        assert max(entry.expires_at for entry in listed) == NOW + 9900

    async def test_what_has_expired_is_not_listed(self, credentials: CredentialStore) -> None:
        await credentials.add_revocation(of_user())
        await credentials.add_revocation(of_token(expires_at=NOW + 7200))
        assert list(await credentials.list_revocations(NOW + 3600)) == [
            of_token(expires_at=NOW + 7200)
        ]
        assert list(await credentials.list_revocations(NOW + 7200)) == []
