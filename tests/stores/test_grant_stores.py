"""Both stores keep every promise of `GrantStore`, and find what was granted by an index."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.errors import StoreUnavailable
from agentflow_server.interfaces import GrantStore
from agentflow_server.stores import grants, postgres_grants
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.stores.users import to_postgres
from agentflow_server.testing.store_grants import (
    LONG,
    GrantStoreSuite,
    add_token,
    follow,
    forget,
    list_kids,
    make_code,
    make_key,
    make_token,
)
from agentflow_server.testing.store_users import add

REPLICAS = 4
MOMENT = datetime(2026, 1, 31, tzinfo=UTC)


class TestSqliteGrants(GrantStoreSuite):
    @pytest.fixture
    async def grants(self, tmp_path: Path) -> AsyncIterator[GrantStore]:
        async with SqliteStore(tmp_path / "agentflow.db") as store:
            yield store


class TestPostgresGrants(GrantStoreSuite):
    @pytest.fixture
    async def grants(self, postgres_url: str) -> AsyncIterator[GrantStore]:
        async with PostgresStore(postgres_url) as store:
            yield store


@pytest.fixture
async def replicas(postgres_url: str) -> AsyncIterator[list[PostgresStore]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(PostgresStore(postgres_url, connections=2))
            for _ in range(REPLICAS)
        ]


PRUNING = grants.describe_pruning(MOMENT)


@pytest.mark.parametrize(
    ("sql", "values", "index"),
    [
        (grants.FIND_TOKEN, (b"t",), "autoindex_refresh_tokens_1 (token_hash=?)"),
        (grants.FIND_TOKEN, (b"t",), "autoindex_grant_families_1 (family_id=?)"),
        (grants.REPLACE_TOKEN, (1, b"t"), "autoindex_refresh_tokens_1 (token_hash=?)"),
        (grants.TAKE_CODE, (b"c",), "autoindex_authorization_codes_1 (code_hash=?)"),
        (grants.FORGET_CODES, ("u",), "authorization_codes_unused (user_id=?)"),
        (grants.REVOKE_FAMILIES, ("u",), "grant_families_by_user (user_id=?)"),
        (*PRUNING[1], "authorization_codes_expiring (expires_at<?)"),
        (*PRUNING[2], "refresh_tokens_expiring (expires_at<?)"),
        (*PRUNING[3], "grant_families_expiring (expires_at<?)"),
    ],
)
async def test_grants_are_found_by_an_index(
    store: SqliteStore, sql: str, values: tuple[Any, ...], index: str
) -> None:
    plan = await store.read(
        lambda c: "; ".join(row[3] for row in c.execute(f"EXPLAIN QUERY PLAN {sql}", values))
    )
    assert index in plan
    assert "SCAN" not in plan


@pytest.mark.parametrize(
    ("sql", "values", "index"),
    [
        (postgres_grants.FIND_TOKEN, (b"t",), "refresh_tokens_pkey"),
        (postgres_grants.REPLACE_TOKEN, (1, b"t"), "refresh_tokens_pkey"),
        (postgres_grants.TAKE_CODE, (b"c",), "authorization_codes_pkey"),
        (postgres_grants.FORGET_CODES, ("u",), "authorization_codes_unused"),
        (postgres_grants.REVOKE_FAMILIES, ("u",), "grant_families_by_user"),
        (*PRUNING[1], "authorization_codes_expiring"),
        (*PRUNING[2], "refresh_tokens_expiring"),
        (*PRUNING[3], "grant_families_expiring"),
    ],
)
async def test_postgres_finds_grants_by_an_index(
    postgres_url: str, sql: str, values: tuple[Any, ...], index: str
) -> None:
    async def explain(connection: Any) -> str:
        async with connection.transaction():
            await connection.execute("SET LOCAL enable_seqscan = off")
            found = await connection.execute(f"EXPLAIN {to_postgres(sql)}", values)
            return "\n".join(row[0] for row in await found.fetchall())

    async with PostgresStore(postgres_url) as store:
        plan = await store.read(explain)
    assert index in plan
    assert "Seq Scan" not in plan


async def test_of_replicas_that_start_together_one_brings_the_key(
    replicas: list[PostgresStore],
) -> None:
    asked = [store.ensure_signing_key(make_key(str(n))) for n, store in enumerate(replicas)]
    added = await asyncio.gather(*asked)
    assert added.count(True) == 1
    for store in replicas:
        assert await list_kids(store) == [str(added.index(True))]


async def test_of_refreshes_on_many_replicas_one_wins(replicas: list[PostgresStore]) -> None:
    token = await add_token(replicas[0])
    for _ in range(9):
        successors = [follow(token) for _ in replicas]
        won = await asyncio.gather(
            *(
                store.replace_refresh_token(token.token_hash, successor)
                for store, successor in zip(replicas, successors, strict=True)
            )
        )
        assert won.count(True) == 1
        token = successors[won.index(True)]
        assert await replicas[-1].find_refresh_token(token.token_hash) == token


async def test_of_replicas_that_take_a_code_one_is_the_first(
    replicas: list[PostgresStore],
) -> None:
    code = make_code()
    await replicas[0].add_code(code)
    taken = await asyncio.gather(*(store.take_code(code.code_hash) for store in replicas))
    assert [one[1] for one in taken if one].count(True) == 1
    assert None not in taken


async def test_no_code_of_a_second_factor_is_good_on_two_replicas(
    replicas: list[PostgresStore],
) -> None:
    user_id = (await add(replicas[0])).user_id
    for step in range(9):
        asked = [store.accept_totp_step(user_id, step) for store in replicas]
        assert (await asyncio.gather(*asked)).count(True) == 1


async def test_replicas_that_clean_up_together_leave_nothing(
    replicas: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "AT_ONCE", 3)
    await asyncio.gather(*(replicas[0].add_code(make_code(-60)) for _ in range(40)))
    moment = datetime.now(UTC) + LONG
    forgotten = await asyncio.gather(*(forget(store, moment) for store in replicas))
    assert sum(forgotten) == 80  # each with its family


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_in_the_end_nothing_is_left(
    kind: str, path: Path, request: pytest.FixtureRequest
) -> None:
    made: Any = (
        SqliteStore(path)
        if kind == "sqlite"
        else PostgresStore(request.getfixturevalue("postgres_url"))
    )
    tables = ("grant_families", "authorization_codes", "refresh_tokens")
    count = " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    async with made as store:
        await store.add_code(make_code())
        token = await add_token(store)
        await store.replace_refresh_token(token.token_hash, follow(token))
        await store.revoke_family("unheard of")
        await forget(store, datetime.now(UTC) + LONG)
        assert await fetch_one(store, f"SELECT {count}") == 0


async def fetch_one(store: Any, sql: str) -> Any:
    if isinstance(store, SqliteStore):
        return await store.read(lambda c: c.execute(sql).fetchone()[0])

    async def read(connection: Any) -> Any:
        return (await (await connection.execute(sql)).fetchone())[0]

    return await store.read(read)


async def test_what_an_operator_revokes_beside_the_server_is_refused_at_once(path: Path) -> None:
    async with SqliteStore(path) as server, SqliteStore(path, exclusive=False) as operator:
        token = await add_token(server)
        assert await operator.revoke_user_grants("alice") == 1
        assert await server.find_refresh_token(token.token_hash) is None


async def test_what_was_granted_outlives_the_server(path: Path) -> None:
    key, token, revoked = make_key(), make_token(), make_token()
    async with SqliteStore(path) as store:
        await store.ensure_signing_key(key)
        await store.add_refresh_token(token)
        await store.revoke_family(revoked.family_id)
    async with SqliteStore(path) as store:
        assert await store.list_signing_keys() == [key]
        assert await store.find_refresh_token(token.token_hash) == token
        assert not await store.add_refresh_token(revoked)


async def test_a_closed_store_grants_nothing(path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await SqliteStore(path, exclusive=False).find_refresh_token(b"t")
