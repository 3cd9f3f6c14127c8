"""Which databases the store takes, and how many servers migrate one together."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import psycopg
import pytest

from agentflow_server.errors import ConfigError
from agentflow_server.models import Idempotency
from agentflow_server.stores import postgres_migrate, postgres_opening
from agentflow_server.stores.migrate import Migration, load_migrations
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.postgres_migrate import LOCK_KEY, migrate_postgres, migration_lock
from agentflow_server.stores.rows import now
from agentflow_server.stores.rules import VALID_FOR

MIGRATIONS = load_migrations("postgres")
VERSIONS = [migration.version for migration in MIGRATIONS]


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        yield connection


async def fetch(connection: Any, statement: str) -> Sequence[tuple[Any, ...]]:
    return await (await connection.execute(statement)).fetchall()


async def list_versions(connection: Any) -> list[int]:
    rows = await fetch(connection, "SELECT version FROM agentflow.schema_migrations ORDER BY 1")
    return [version for (version,) in rows]


async def refusal(url: str) -> str:
    with pytest.raises(ConfigError) as caught:
        await PostgresStore(url).__aenter__()
    (line,) = caught.value.problems
    assert "\n" not in line
    return line


# Migrating


def test_migrations_have_numbers_of_their_own() -> None:
    assert len(set(VERSIONS)) == len(VERSIONS)


async def test_of_many_servers_that_start_together_one_migrates(
    postgres_url: str, connection: Any
) -> None:
    stores = [PostgresStore(postgres_url) for _ in range(8)]
    await asyncio.gather(*(store.__aenter__() for store in stores))
    for store in stores:
        await store.ping()
        await store.__aexit__(None, None, None)
    assert await list_versions(connection) == VERSIONS


async def test_who_comes_while_somebody_migrates_waits_outside_of_transactions(
    postgres_url: str, connection: Any
) -> None:
    async with migration_lock(connection):
        opening = asyncio.create_task(PostgresStore(postgres_url).__aenter__())
        tries = (
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%try_advisory%'"
            " AND state = 'idle' AND application_name = 'agentflow'"
        )
        async with asyncio.timeout(10):
            while await fetch(connection, tries) != [(1,)]:
                await asyncio.sleep(0)
        # This waits for all transactions to end, those that wait for a lock included.
        await connection.execute("CREATE TABLE own (n integer)")
        await connection.execute("CREATE INDEX CONCURRENTLY ON own (n)")
        assert not opening.done()
    store = await opening
    await store.__aexit__(None, None, None)


async def test_a_lock_that_is_never_given_back_stops_the_start(
    postgres_url: str, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_migrate, "_PATIENCE", 0.2)
    await connection.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
    assert "another server has been migrating" in await refusal(postgres_url)


async def test_only_missing_migrations_are_applied(connection: Any) -> None:
    more = Migration(MIGRATIONS[-1].version + 1, "more", "CREATE TABLE more (n integer);")
    await migrate_postgres(connection, MIGRATIONS)
    for _ in range(2):
        await migrate_postgres(connection, [*MIGRATIONS, more])
    assert await list_versions(connection) == [*VERSIONS, more.version]
    assert await fetch(connection, "SELECT n FROM agentflow.more") == []


async def test_a_migration_that_fails_leaves_nothing_behind(connection: Any) -> None:
    sql = "CREATE TABLE more (n integer); SELECT nonsense FROM nowhere;"
    broken = Migration(MIGRATIONS[-1].version + 1, "broken", sql)
    with pytest.raises(psycopg.Error):
        await migrate_postgres(connection, [*MIGRATIONS, broken])
    assert await list_versions(connection) == VERSIONS
    assert await fetch(connection, "SELECT to_regclass('agentflow.more')") == [(None,)]
    async with asyncio.timeout(5), migration_lock(connection):
        pass


# Whose database it is


async def test_a_newer_schema_is_refused(postgres_url: str, connection: Any) -> None:
    async with PostgresStore(postgres_url):
        await connection.execute("INSERT INTO agentflow.schema_migrations VALUES (999, 'later', 0)")
    assert "newer agentflow-server (its schema is 999" in await refusal(postgres_url)


async def test_another_programs_schema_is_refused_and_not_changed(
    postgres_url: str, connection: Any
) -> None:
    await connection.execute("CREATE SCHEMA agentflow CREATE TABLE threads (n integer)")
    assert "belongs to another program" in await refusal(postgres_url)
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'agentflow'"
    assert await fetch(connection, tables) == [("threads",)]


async def test_other_programs_tables_are_left_alone(postgres_url: str, connection: Any) -> None:
    await connection.execute("CREATE TABLE threads (n integer)")
    async with PostgresStore(postgres_url) as store:
        await store.create_thread("alice", "t1", metadata={})
    assert await fetch(connection, "SELECT * FROM public.threads") == []


async def test_a_user_without_rights_on_the_database_needs_only_the_schema(
    postgres_server: Any,
) -> None:
    with postgres_server.new_database() as url:
        postgres_server.execute("CREATE USER clerk PASSWORD 'clerk'")
        his_url = re.sub("//[^@]*@", "//clerk:clerk@", url)
        try:
            assert "permission denied" in await refusal(his_url)
            postgres_server.execute("CREATE SCHEMA agentflow AUTHORIZATION clerk", url)
            async with PostgresStore(his_url) as store:
                await store.create_thread("alice", "t1", metadata={})
        finally:
            postgres_server.execute("DROP OWNED BY clerk", url)
            postgres_server.execute("DROP USER clerk")


# What is refused


async def test_a_wrong_password_is_refused_and_not_repeated(postgres_url: str) -> None:
    line = await refusal(postgres_url.replace("postgres:", "postgres:wrong-", 1))
    assert "password authentication failed" in line
    assert "wrong-" not in line


async def test_a_server_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = await refusal(f"postgresql://alice:hidden@127.0.0.1:{port}/chat")
    assert line.startswith(f"postgresql://127.0.0.1:{port}/chat: ")
    assert "hidden" not in line


@pytest.mark.parametrize(
    "url",
    ["postgresql://alice:hidden@localhost/chat?sslmod=x", "host=a hidden", "postgresql://[hidden"],
)
async def test_what_is_no_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await PostgresStore(url).__aenter__()
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_database_in_another_encoding_is_refused(postgres_server: Any) -> None:
    with postgres_server.new_database("ENCODING 'SQL_ASCII'") as url:
        assert "must have the encoding UTF8, found SQL_ASCII" in await refusal(url)


async def test_an_old_server_is_refused(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_opening, "MINIMUM_VERSION", 99)
    assert "PostgreSQL 99 or newer is needed, found " in await refusal(postgres_url)


# At the start


async def test_old_idempotency_keys_are_forgotten_at_the_start(
    postgres_url: str, connection: Any
) -> None:
    async with PostgresStore(postgres_url) as store:
        for n in range(3):
            key = Idempotency(f"k{n}", "POST /threads", "d")
            await store.create_thread("alice", f"t{n}", metadata={}, idempotency=key)
        await connection.execute(
            "UPDATE agentflow.idempotency SET created_at = %s WHERE key <> 'k2'",
            (now() - VALID_FOR - 1,),
        )
    async with PostgresStore(postgres_url):
        assert await fetch(connection, "SELECT key FROM agentflow.idempotency") == [("k2",)]
