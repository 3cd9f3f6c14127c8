"""What every GrantStore has to get right, as tests to inherit."""
# ruff: noqa: S101 - asserting is what a suite is for

import asyncio
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentflow_server.errors import IdTaken
from agentflow_server.interfaces import GrantStore
from agentflow_server.models import AuthorizationCode, RefreshToken, SigningKey

MINUTE = timedelta(minutes=1)
LONG = timedelta(days=400)
"""After everything here has expired and is forgotten."""


def make_key(kid: str = "first", **changes: Any) -> SigningKey:
    moment = datetime.now(UTC)
    values: dict[str, Any] = {"created_at": moment, "signs_from": moment}
    return SigningKey(kid=kid, algorithm="ES256", private_pem="PEM of it", **(values | changes))


def make_code(lifetime: float = 60, **changes: Any) -> AuthorizationCode:
    """Of alice, in a family of its own unless another is named."""
    moment = datetime.now(UTC)
    values: dict[str, Any] = {
        "code_hash": secrets.token_bytes(32),
        "client_id": "app",
        "redirect_uri": "https://app.example/callback",
        "code_challenge": secrets.token_urlsafe(32),
        "user_id": "alice",
        "scopes": ("threads:read", "threads:write"),
        "authenticated_at": moment,
        "expires_at": moment + timedelta(seconds=lifetime),
        "family_id": secrets.token_hex(16),
    }
    return AuthorizationCode(**(values | changes))


def make_token(lifetime: float = 3600, **changes: Any) -> RefreshToken:
    """Of alice, in a family of its own unless another is named."""
    moment = datetime.now(UTC)
    values: dict[str, Any] = {
        "token_hash": secrets.token_bytes(32),
        "family_id": secrets.token_hex(16),
        "client_id": "app",
        "user_id": "alice",
        "scopes": ("threads:read",),
        "authenticated_at": moment,
        "issued_at": moment,
        "expires_at": moment + timedelta(seconds=lifetime),
    }
    return RefreshToken(**(values | changes))


def follow(token: RefreshToken) -> RefreshToken:
    """A successor of it, a second later."""
    issued_at = token.issued_at + timedelta(seconds=1)
    return replace(token, token_hash=secrets.token_bytes(32), issued_at=issued_at)


async def add_token(grants: GrantStore, **changes: Any) -> RefreshToken:
    token = make_token(**changes)
    assert await grants.add_refresh_token(token)
    return token


async def list_kids(grants: GrantStore) -> list[str]:
    return [key.kid for key in await grants.list_signing_keys()]


async def forget(grants: GrantStore, moment: datetime) -> int:
    """Whatever has expired by then; how many they were."""
    forgotten = 0
    while number := await grants.prune_grants(moment):
        forgotten += number
    return forgotten


class KeyTests:
    async def test_a_key_comes_back_as_it_was(self, grants: GrantStore) -> None:
        moment = datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC)
        key = SigningKey("k", "ES256", "-----BEGIN\nx\n", moment, moment + MINUTE, moment + LONG)
        assert await grants.list_signing_keys() == []
        assert await grants.ensure_signing_key(key)
        assert await grants.list_signing_keys() == [key]
        assert "BEGIN" not in repr(key)

    async def test_of_many_who_start_one_brings_the_first_key(self, grants: GrantStore) -> None:
        keys = [make_key(str(number)) for number in range(9)]
        added = await asyncio.gather(*map(grants.ensure_signing_key, keys))
        assert added.count(True) == 1
        assert await list_kids(grants) == [keys[added.index(True)].kid]

    async def test_a_new_key_ends_the_others_in_one_step(self, grants: GrantStore) -> None:
        moment = datetime.now(UTC)
        first, second, third = map(make_key, ("first", "second", "third"))
        await grants.ensure_signing_key(first)
        await grants.add_signing_key(second, others_retire_at=moment + MINUTE)
        await grants.add_signing_key(third, others_retire_at=moment + 2 * MINUTE)
        assert await grants.list_signing_keys() == [
            replace(first, retires_at=moment + MINUTE),
            replace(second, retires_at=moment + 2 * MINUTE),
            third,
        ]
        assert not await grants.ensure_signing_key(make_key("fourth"))

    async def test_a_key_whose_name_is_taken_ends_no_other(self, grants: GrantStore) -> None:
        key = make_key()
        await grants.ensure_signing_key(key)
        with pytest.raises(IdTaken):
            await grants.add_signing_key(make_key(), others_retire_at=datetime.now(UTC))
        assert await grants.list_signing_keys() == [key]

    async def test_however_many_rotate_at_once_one_key_stays(self, grants: GrantStore) -> None:
        keys = [make_key(str(number)) for number in range(9)]
        retires_at = datetime.now(UTC)
        await asyncio.gather(
            *(grants.add_signing_key(key, others_retire_at=retires_at) for key in keys)
        )
        found = await grants.list_signing_keys()
        assert len(found) == len(keys)
        assert [key.retires_at for key in found].count(None) == 1

    async def test_keys_are_in_the_order_in_which_they_sign(self, grants: GrantStore) -> None:
        moment = datetime.now(UTC)
        for kid, minutes in (("b", 2), ("c", 0), ("a", 1)):
            key = make_key(kid, signs_from=moment + minutes * MINUTE)
            await grants.add_signing_key(key, others_retire_at=moment + LONG)
        assert await list_kids(grants) == ["c", "a", "b"]

    async def test_a_removed_key_is_gone_at_once(self, grants: GrantStore) -> None:
        await grants.ensure_signing_key(make_key())
        for kid in ("", "FIRST", "first\x00", "' OR '1'='1"):
            assert not await grants.remove_signing_key(kid)
        assert await grants.remove_signing_key("first")
        assert not await grants.remove_signing_key("first")
        assert await grants.list_signing_keys() == []
        assert await grants.ensure_signing_key(make_key("another"))

    async def test_a_key_is_forgotten_when_it_has_retired(self, grants: GrantStore) -> None:
        retires_at = datetime.now(UTC) + MINUTE
        await grants.ensure_signing_key(make_key())
        await grants.add_signing_key(make_key("second"), others_retire_at=retires_at)
        assert await forget(grants, retires_at - timedelta(microseconds=1)) == 0
        assert await forget(grants, retires_at) > 0
        await forget(grants, retires_at + LONG)
        assert await list_kids(grants) == ["second"]


class CodeTests:
    async def test_a_code_is_taken_once(self, grants: GrantStore) -> None:
        code, other = make_code(), make_code(scopes=())
        await grants.add_code(code)
        await grants.add_code(other)
        assert await grants.take_code(code.code_hash) == (code, True)
        for _ in range(2):
            assert await grants.take_code(code.code_hash) == (code, False)
        assert await grants.take_code(other.code_hash) == (other, True)

    async def test_of_many_who_take_a_code_one_is_the_first(self, grants: GrantStore) -> None:
        code = make_code()
        await grants.add_code(code)
        taken = await asyncio.gather(*(grants.take_code(code.code_hash) for _ in range(9)))
        assert sorted(taken, key=str) == sorted([(code, True), *[(code, False)] * 8], key=str)

    async def test_nobody_takes_what_is_no_code(self, grants: GrantStore) -> None:
        code = make_code(code_hash=b"\x00\xff" * 16)
        await grants.add_code(code)
        for code_hash in (b"", b"\x00", code.code_hash[:-1], code.code_hash + b"\x00"):
            assert await grants.take_code(code_hash) is None

    async def test_an_expired_code_is_returned_until_it_is_forgotten(
        self, grants: GrantStore
    ) -> None:
        code = make_code(-60)
        await grants.add_code(code)
        assert await forget(grants, code.expires_at - timedelta(microseconds=1)) == 0
        assert await grants.take_code(code.code_hash) == (code, True)
        assert await forget(grants, code.expires_at) > 0
        assert await grants.take_code(code.code_hash) is None


class RefreshTests:
    async def test_a_refresh_token_comes_back_as_it_was(self, grants: GrantStore) -> None:
        token = await add_token(grants, token_hash=b"\x00\xff" * 16, scopes=())
        assert await grants.find_refresh_token(token.token_hash) == token
        for token_hash in (b"", b"\x00", token.token_hash[:-1]):
            assert await grants.find_refresh_token(token_hash) is None

    async def test_a_replaced_token_says_since_when(self, grants: GrantStore) -> None:
        token = await add_token(grants)
        successor = follow(token)
        assert await grants.replace_refresh_token(token.token_hash, successor)
        replaced = replace(token, replaced_at=successor.issued_at)
        assert await grants.find_refresh_token(token.token_hash) == replaced
        assert await grants.find_refresh_token(successor.token_hash) == successor

    async def test_a_token_is_replaced_once(self, grants: GrantStore) -> None:
        token = await add_token(grants)
        successor, late = follow(token), follow(token)
        assert await grants.replace_refresh_token(token.token_hash, successor)
        assert not await grants.replace_refresh_token(token.token_hash, late)
        assert await grants.find_refresh_token(late.token_hash) is None
        assert await grants.replace_refresh_token(successor.token_hash, follow(successor))

    async def test_of_parallel_refreshes_one_wins(self, grants: GrantStore) -> None:
        token = await add_token(grants)
        successors = [follow(token) for _ in range(9)]
        won = await asyncio.gather(
            *(grants.replace_refresh_token(token.token_hash, one) for one in successors)
        )
        assert won.count(True) == 1
        found = [await grants.find_refresh_token(one.token_hash) for one in successors]
        assert found == [one if first else None for one, first in zip(successors, won, strict=True)]

    async def test_nothing_follows_what_is_unknown(self, grants: GrantStore) -> None:
        successor = make_token()
        assert not await grants.replace_refresh_token(b"unknown", successor)
        assert await grants.find_refresh_token(successor.token_hash) is None

    async def test_a_replaced_token_is_known_until_it_expires(self, grants: GrantStore) -> None:
        token = await add_token(grants)
        await grants.replace_refresh_token(token.token_hash, follow(token))
        assert await forget(grants, token.expires_at - timedelta(microseconds=1)) == 0
        found = await grants.find_refresh_token(token.token_hash)
        assert found is not None
        assert found.replaced_at is not None
        assert await forget(grants, token.expires_at) > 0
        assert await grants.find_refresh_token(token.token_hash) is None


class RevocationTests:
    async def test_a_revoked_family_refuses_everything(self, grants: GrantStore) -> None:
        token, other = await add_token(grants), await add_token(grants)
        newest = follow(token)
        await grants.replace_refresh_token(token.token_hash, newest)
        for _ in range(2):
            await grants.revoke_family(token.family_id)
            assert await grants.find_refresh_token(token.token_hash) is None
            assert await grants.find_refresh_token(newest.token_hash) is None
            assert not await grants.replace_refresh_token(newest.token_hash, follow(newest))
            assert not await grants.add_refresh_token(make_token(family_id=token.family_id))
        assert await grants.find_refresh_token(other.token_hash) == other

    async def test_a_family_can_be_revoked_before_its_first_token(self, grants: GrantStore) -> None:
        code = make_code()
        await grants.add_code(code)
        await grants.take_code(code.code_hash)
        for family_id in (code.family_id, "unheard of"):
            token = make_token(family_id=family_id)
            await grants.revoke_family(family_id)
            assert not await grants.add_refresh_token(token)
            assert await grants.find_refresh_token(token.token_hash) is None

    async def test_what_is_revoked_at_the_same_time_is_revoked(self, grants: GrantStore) -> None:
        token = await add_token(grants)
        for _ in range(9):
            successor, begun = follow(token), make_token()
            await asyncio.gather(
                grants.replace_refresh_token(token.token_hash, successor),
                grants.revoke_family(token.family_id),
                grants.add_refresh_token(begun),
                grants.revoke_family(begun.family_id),
            )
            for one in (token, successor, begun):
                assert await grants.find_refresh_token(one.token_hash) is None
            token = await add_token(grants)

    async def test_a_family_stays_revoked_until_it_expires(self, grants: GrantStore) -> None:
        token = await add_token(grants)
        await grants.revoke_family(token.family_id)
        await forget(grants, token.expires_at - timedelta(microseconds=1))
        assert not await grants.add_refresh_token(make_token(family_id=token.family_id))
        assert await grants.find_refresh_token(token.token_hash) is None

    async def test_who_took_a_code_late_is_revoked_none_the_less(self, grants: GrantStore) -> None:
        code = make_code()
        await grants.add_code(code)
        await grants.take_code(code.code_hash)
        await grants.revoke_family(code.family_id)
        await forget(grants, code.expires_at + MINUTE)
        assert not await grants.add_refresh_token(make_token(family_id=code.family_id))

    async def test_all_grants_of_a_user_end_together(self, grants: GrantStore) -> None:
        tokens = [await add_token(grants) for _ in range(3)]
        unused, used = make_code(), make_code()
        bobs_code, bobs = make_code(user_id="bob"), await add_token(grants, user_id="bob")
        for code in (unused, used, bobs_code):
            await grants.add_code(code)
        await grants.take_code(used.code_hash)
        assert await grants.revoke_user_grants("alice") >= len(tokens)
        assert await grants.revoke_user_grants("alice") == 0
        for token in tokens:
            assert await grants.find_refresh_token(token.token_hash) is None
        assert await grants.take_code(unused.code_hash) is None
        assert await grants.take_code(used.code_hash) == (used, False)
        assert not await grants.add_refresh_token(make_token(family_id=used.family_id))
        assert await grants.find_refresh_token(bobs.token_hash) == bobs
        assert await grants.take_code(bobs_code.code_hash) == (bobs_code, True)

    async def test_he_is_told_how_many_were_still_good(self, grants: GrantStore) -> None:
        await add_token(grants)
        token = await add_token(grants)
        await grants.replace_refresh_token(token.token_hash, follow(token))
        await add_token(grants, lifetime=-60)
        revoked = await add_token(grants)
        await grants.revoke_family(revoked.family_id)
        assert await grants.revoke_user_grants("alice") == 2

    async def test_a_user_who_logs_in_again_has_new_grants(self, grants: GrantStore) -> None:
        await add_token(grants)
        await grants.revoke_user_grants("alice")
        token = await add_token(grants)
        assert await grants.find_refresh_token(token.token_hash) == token

    @pytest.mark.parametrize("user_id", ["", "ALICE", "alice\x00", "%", "' OR '1'='1"])
    async def test_nobody_else_loses_anything(self, grants: GrantStore, user_id: str) -> None:
        token = await add_token(grants)
        assert await grants.revoke_user_grants(user_id) == 0
        assert await grants.find_refresh_token(token.token_hash) == token


class GrantStoreSuite(KeyTests, CodeTests, RefreshTests, RevocationTests):
    """Subclass it, give it your store, opened and empty, and run pytest:

    class TestMyGrants(GrantStoreSuite):
        @pytest.fixture
        async def grants(self, tmp_path):
            async with MyStore(tmp_path / "my.db") as store:
                yield store
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    async def grants(self) -> GrantStore:
        raise NotImplementedError("override this fixture")
