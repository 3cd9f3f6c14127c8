"""Numbered SQL files → an up-to-date schema, by one of many servers that start together."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection

from agentflow_server.errors import ConfigError
from agentflow_server.stores.migrate import Migration, refuse_upgrade
from agentflow_server.stores.rows import now

SCHEMA = "agentflow"
"""Of our own, because names like `threads` are everybody's."""

LOCK_KEY = 1095190092
"""The advisory lock of whoever changes a schema; the number that marks our SQLite files, too."""

_POLL = 0.1
_PATIENCE = 120.0

_FIND_TABLES = """
    SELECT n.oid IS NOT NULL, c.relname FROM (SELECT to_regnamespace(%s) AS oid) AS n
    LEFT JOIN pg_class AS c ON c.relnamespace = n.oid"""


async def migrate_postgres(
    connection: AsyncConnection[Any], migrations: Sequence[Migration], *, upgrades: bool = True
) -> None:
    """Apply what is missing, each migration in one transaction with its version.

    The connection commits by itself, and is nobody else's. Raises ConfigError when the schema is
    another program's or newer than the migrations, and, unless this `upgrades`, when it is older.
    """
    missing = await find_missing(connection, migrations)
    if not missing:
        return
    if not upgrades:
        refuse_upgrade(missing, migrations)
    async with migration_lock(connection):
        for migration in await find_missing(connection, migrations):
            await _apply(connection, migration)


@asynccontextmanager
async def migration_lock(connection: AsyncConnection[Any]) -> AsyncIterator[None]:
    """Only one session at a time has it. The connection must commit by itself.

    It is polled for: who waits within a statement is seen as a transaction by `CREATE INDEX
    CONCURRENTLY`, which then waits for him while he waits for it. Raises ConfigError.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            while not await _try_lock(connection):  # noqa: ASYNC110 – no event comes from there
                await asyncio.sleep(_POLL)
    except TimeoutError:
        raise ConfigError("another server has been migrating the database for too long") from None
    try:
        yield
    finally:
        await connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK_KEY,))


async def _try_lock(connection: AsyncConnection[Any]) -> bool:
    cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_KEY,))
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def find_missing(
    connection: AsyncConnection[Any], migrations: Sequence[Migration]
) -> Sequence[Migration]:
    """The migrations that the database has not seen.

    Raises ConfigError when the schema is another program's or newer than the migrations.
    """
    version = await _find_version(connection)
    newest = migrations[-1].version
    if version > newest:
        raise ConfigError(
            f"the database was made by a newer agentflow-server (its schema is {version}, "
            f"this one knows up to {newest})"
        )
    return [migration for migration in migrations if migration.version > version]


async def _find_version(connection: AsyncConnection[Any]) -> int:
    cursor = await connection.execute(_FIND_TABLES, (SCHEMA,))
    tables = {name for _, name in await cursor.fetchall()} - {None}
    if not tables:
        return 0
    if "schema_migrations" not in tables:
        raise ConfigError(f"the schema {SCHEMA} belongs to another program")
    cursor = await connection.execute(f"SELECT max(version) FROM {SCHEMA}.schema_migrations")
    row = await cursor.fetchone()
    return int(row[0]) if row and row[0] else 0


async def _apply(connection: AsyncConnection[Any], migration: Migration) -> None:
    async with connection.transaction():
        # An administrator may have made it; `IF NOT EXISTS` would ask for the right to make it.
        cursor = await connection.execute("SELECT to_regnamespace(%s) IS NULL", (SCHEMA,))
        if await cursor.fetchone() == (True,):
            await connection.execute(f"CREATE SCHEMA {SCHEMA}")
        await connection.execute(f"SET LOCAL search_path = {SCHEMA}")
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO schema_migrations (version, name, applied_at) VALUES (%s, %s, %s)",
            (migration.version, migration.name, now()),
        )
