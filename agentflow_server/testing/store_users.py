"""What every UserStore has to get right, as tests to inherit."""
# ruff: noqa: S101 - asserting is what a suite is for

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from uuid_utils import uuid7

from agentflow_server.errors import IdTaken, InvalidRequest, NotFound
from agentflow_server.interfaces import UserStore
from agentflow_server.models import User, UserChange, UserSecrets

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECRETS = UserSecrets("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA")
ANOTHER = "$argon2id$v=19$m=19456,t=2,p=1$YW5vdGhlcg$aGFzaA"


def make_user(username: str = "alice", **changes: Any) -> User:
    values: dict[str, Any] = {
        "user_id": str(uuid7()),
        "roles": [],
        "scopes": [],
        "claims": {},
        "created_at": START,
        "password_changed_at": START,
    }
    return User(username=username, **(values | changes))


async def add(users: UserStore, username: str = "alice", **changes: Any) -> User:
    user = make_user(username, **changes)
    await users.add_users([(user, SECRETS)])
    return user


async def list_names(users: UserStore) -> list[str]:
    return [user.username for user in (await users.list_users(limit=99)).data]


class UserStoreSuite:
    """Subclass it, give it your store, opened and empty, and run pytest:

    class TestMyUsers(UserStoreSuite):
        @pytest.fixture
        async def users(self, tmp_path):
            async with MyStore(tmp_path / "my.db") as store:
                yield store
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    async def users(self) -> UserStore:
        raise NotImplementedError("override this fixture")

    async def test_a_user_comes_back_as_he_was(self, users: UserStore) -> None:
        full = make_user(
            "alice@example.com",
            roles=["admin", "editor"],
            scopes=["threads:read"],
            claims={
                "department": 'Grüße "quoted" 世界 \x00',
                "level": 3,
                "tags": [None, {"a": 1.5}],
            },
            created_at=START + timedelta(microseconds=1),
            disabled_at=START + timedelta(seconds=1),
            password_changed_at=START + timedelta(seconds=2),
            has_totp=True,
        )
        secrets = UserSecrets(SECRETS.password_hash, b"\x00\xff\x01")
        bare = make_user("bob", password_changed_at=None)
        await users.add_users([(full, secrets), (bare, UserSecrets())])
        assert await users.get_user(full.user_id) == full
        assert await users.find_user_by_name("alice@example.com") == (full, secrets)
        assert await users.find_user_by_name("bob") == (bare, UserSecrets())
        assert (await users.list_users(limit=9)).data == [full, bare]

    async def test_no_user_shows_his_secrets(self, users: UserStore) -> None:
        secrets = UserSecrets(SECRETS.password_hash, b"seed of the codes")
        user = make_user(has_totp=True)
        await users.add_users([(user, secrets)])
        found = await users.find_user_by_name("alice")
        for shown in (repr(found), repr(secrets), user.model_dump_json()):
            assert "argon2id" not in shown
            assert "seed" not in shown

    @pytest.mark.parametrize("written", ["Alice", "ALICE", "ａｌｉｃｅ", "Ａlice", "ALiCE"])
    async def test_a_user_is_found_however_his_name_is_written(
        self, users: UserStore, written: str
    ) -> None:
        user = await add(users, "alice")
        found = await users.find_user_by_name(written)
        assert found is not None
        assert found[0] == user

    @pytest.mark.parametrize(
        "username",
        [
            "",
            "alic",
            "alicee",
            " alice",
            "alice ",
            "%",
            "alice\x00",
            "аlice",
            "x" * 999,
            "' OR 1=1--",
        ],
    )
    async def test_nobody_else_is_found(self, users: UserStore, username: str) -> None:
        await add(users, "alice")
        assert await users.find_user_by_name(username) is None

    @pytest.mark.parametrize("written", ["alice", "Alice", "ＡＬＩＣＥ"])
    async def test_a_username_is_taken_once(self, users: UserStore, written: str) -> None:
        first = await add(users, "alice", roles=["admin"])
        with pytest.raises(IdTaken):
            await add(users, written)
        assert (await users.list_users(limit=9)).data == [first]

    async def test_an_id_is_taken_once(self, users: UserStore) -> None:
        first = await add(users, "alice")
        with pytest.raises(IdTaken):
            await add(users, "bob", user_id=first.user_id)
        assert await list_names(users) == ["alice"]

    @pytest.mark.parametrize("name", ["alice", "bob"])
    async def test_of_several_either_all_are_added_or_none(
        self, users: UserStore, name: str
    ) -> None:
        await add(users, "alice")
        new = [make_user("bob"), make_user("carol"), make_user(name)]
        with pytest.raises(IdTaken):
            await users.add_users([(user, SECRETS) for user in new])
        assert await list_names(users) == ["alice"]
        await users.add_users([(user, SECRETS) for user in new[:2]])
        await users.add_users([])
        assert await list_names(users) == ["alice", "bob", "carol"]

    async def test_pages_are_in_the_order_of_the_names(self, users: UserStore) -> None:
        names = ["b", "a", "a.b", "a_b", "zoe", "a-b", "10", "ab"]
        for name in names:
            await add(users, name)
        seen: list[str] = []
        cursor = None
        while True:
            page = await users.list_users(limit=3, cursor=cursor)
            seen += [user.username for user in page.data]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == sorted(names)
        assert (await users.list_users(limit=len(names))).next_cursor is None

    @pytest.mark.parametrize("cursor", ["", "x", "bnVsbA", "W10"])
    async def test_a_cursor_of_another_list_is_refused(self, users: UserStore, cursor: str) -> None:
        with pytest.raises(InvalidRequest):
            await users.list_users(limit=3, cursor=cursor)

    async def test_what_is_not_named_does_not_change(self, users: UserStore) -> None:
        user = await add(users, roles=["editor"], scopes=["threads:read"], claims={"a": 1})
        assert await users.update_user(user.user_id, UserChange()) == user
        changed = await users.update_user(user.user_id, UserChange(roles=["admin"]))
        assert changed == user.model_copy(update={"roles": ["admin"]})
        changed = await users.update_user(user.user_id, UserChange(scopes=[], claims={"b": [2]}))
        assert (changed.roles, changed.scopes, changed.claims) == (["admin"], [], {"b": [2]})
        assert await users.get_user(user.user_id) == changed
        assert await users.find_user_by_name("alice") == (changed, SECRETS)

    async def test_a_disabled_user_keeps_his_time_until_he_is_enabled(
        self, users: UserStore
    ) -> None:
        user, other = await add(users), await add(users, "bob")
        first = await users.update_user(user.user_id, UserChange(disabled=True))
        again = await users.update_user(user.user_id, UserChange(disabled=True))
        assert first.disabled_at is not None
        assert again == first
        assert await users.update_user(user.user_id, UserChange(disabled=False)) == user
        assert await users.get_user(other.user_id) == other

    async def test_a_new_password_has_a_new_time(self, users: UserStore) -> None:
        user = await add(users)
        changed = await users.update_user(user.user_id, UserChange(password_hash=ANOTHER))
        assert changed.password_changed_at is not None
        assert changed.password_changed_at > START
        assert await users.find_user_by_name("alice") == (changed, UserSecrets(ANOTHER))

    async def test_a_second_factor_comes_and_goes(self, users: UserStore) -> None:
        user = await add(users)
        enrolled = await users.update_user(user.user_id, UserChange(totp_secret=b"\x00seed"))
        assert enrolled == user.model_copy(update={"has_totp": True})
        found = await users.find_user_by_name("alice")
        assert found is not None
        assert found[1] == UserSecrets(SECRETS.password_hash, b"\x00seed")
        assert await users.update_user(user.user_id, UserChange(totp_secret=b"")) == user
        assert await users.find_user_by_name("alice") == (user, SECRETS)

    async def test_a_hash_is_replaced_unless_the_password_is_another_by_now(
        self, users: UserStore
    ) -> None:
        user, other = await add(users), await add(users, "bob")
        assert SECRETS.password_hash is not None
        await users.replace_hash(user.user_id, SECRETS.password_hash, "stronger")
        await users.replace_hash(user.user_id, SECRETS.password_hash, "too late")
        assert await users.find_user_by_name("alice") == (user, UserSecrets("stronger"))
        assert await users.find_user_by_name("bob") == (other, SECRETS)

    async def test_no_code_of_a_second_factor_is_good_twice(self, users: UserStore) -> None:
        user, other = await add(users), await add(users, "bob")
        asked = [users.accept_totp_step(user.user_id, 59_000_000) for _ in range(9)]
        assert (await asyncio.gather(*asked)).count(True) == 1
        assert not await users.accept_totp_step(user.user_id, 58_999_999)
        assert await users.accept_totp_step(user.user_id, 59_000_001)
        assert await users.accept_totp_step(other.user_id, 1)
        assert await users.get_user(user.user_id) == user

    async def test_a_removed_user_is_gone_and_his_name_is_free(self, users: UserStore) -> None:
        user, other = await add(users), await add(users, "bob")
        assert await users.remove_user(user.user_id)
        assert not await users.remove_user(user.user_id)
        assert await users.find_user_by_name("alice") is None
        again = await add(users)
        assert again.user_id != user.user_id
        assert (await users.list_users(limit=9)).data == [again, other]

    @pytest.mark.parametrize("user_id", ["", "alice", "\x00", "' OR '1'='1"])
    async def test_what_is_not_there_cannot_be_had_or_changed(
        self, users: UserStore, user_id: str
    ) -> None:
        user = await add(users)
        with pytest.raises(NotFound):
            await users.get_user(user_id)
        for change in (UserChange(), UserChange(disabled=True)):
            with pytest.raises(NotFound):
                await users.update_user(user_id, change)
        assert not await users.accept_totp_step(user_id, 1)
        assert not await users.remove_user(user_id)
        assert await users.get_user(user.user_id) == user
