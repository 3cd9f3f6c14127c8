"""Both stores keep every promise of `UserStore`, and find users by an index."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.errors import IdTaken, StoreUnavailable
from agentflow_server.interfaces import UserStore
from agentflow_server.models import UserChange
from agentflow_server.stores import postgres_users, users
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.store_users import UserStoreSuite, add, list_names


class TestSqliteUsers(UserStoreSuite):
    @pytest.fixture
    async def users(self, tmp_path: Path) -> AsyncIterator[UserStore]:
        async with SqliteStore(tmp_path / "agentflow.db") as store:
            yield store


class TestSqliteUsersBesideAServer(UserStoreSuite):
    @pytest.fixture
    async def users(self, tmp_path: Path) -> AsyncIterator[UserStore]:
        path = tmp_path / "agentflow.db"
        async with SqliteStore(path), SqliteStore(path, exclusive=False) as store:
            yield store


class TestPostgresUsers(UserStoreSuite):
    @pytest.fixture
    async def users(self, postgres_url: str) -> AsyncIterator[UserStore]:
        async with PostgresStore(postgres_url) as store:
            yield store


@pytest.mark.parametrize(
    ("sql", "values", "index"),
    [
        (users.FIND_BY_NAME, ("a",), "sqlite_autoindex_users_2 (username=?)"),
        (users.GET, ("u",), "sqlite_autoindex_users_1 (user_id=?)"),
        (users.PAGE, ("", 9), "sqlite_autoindex_users_2 (username>?)"),
    ],
)
async def test_users_are_found_and_ordered_by_an_index(
    store: SqliteStore, sql: str, values: tuple[Any, ...], index: str
) -> None:
    plan = await store.read(
        lambda c: "; ".join(row[3] for row in c.execute(f"EXPLAIN QUERY PLAN {sql}", values))
    )
    assert index in plan
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        (postgres_users.FIND_BY_NAME, ("a",)),
        (postgres_users.GET, ("u",)),
        (postgres_users.PAGE, ("", 9)),
    ],
)
async def test_postgres_finds_and_orders_users_by_an_index(
    postgres_url: str, sql: str, values: tuple[Any, ...]
) -> None:
    async def explain(connection: Any) -> str:
        async with connection.transaction():
            await connection.execute("SET LOCAL enable_seqscan = off")
            found = await connection.execute(f"EXPLAIN {sql}", values)
            return "\n".join(row[0] for row in await found.fetchall())

    async with PostgresStore(postgres_url) as store:
        plan = await store.read(explain)
    assert "users_pkey" in plan or "users_username_key" in plan
    assert "Sort" not in plan


async def test_a_closed_store_knows_no_users(path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await SqliteStore(path, exclusive=False).find_user_by_name("alice")


async def test_of_many_who_want_one_name_one_gets_it(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store:
        asked = [add(store, "Alice" if n % 2 else "alice") for n in range(20)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(answer, IdTaken) for answer in answers) == 19
        assert await list_names(store) == ["alice"]


async def test_a_change_of_another_process_is_seen_at_once(path: Path) -> None:
    async with SqliteStore(path) as server, SqliteStore(path, exclusive=False) as operator:
        user = await add(server)
        await operator.update_user(user.user_id, UserChange(disabled=True))
        assert (await server.get_user(user.user_id)).disabled_at is not None
