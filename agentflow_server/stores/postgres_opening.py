"""Opening a PostgreSQL database: whether it is fit, and up to date; then a pool of connections."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import psycopg
from psycopg import AsyncConnection, conninfo
from psycopg_pool import AsyncConnectionPool

from agentflow_server.errors import ConfigError
from agentflow_server.postgres_url import add_defaults
from agentflow_server.stores.migrate import Condition, load_migrations
from agentflow_server.stores.postgres_connections import (
    Connection,
    PostgresConnections,
    one_line,
)
from agentflow_server.stores.postgres_idempotency import prune
from agentflow_server.stores.postgres_migrate import (
    SCHEMA,
    find_missing,
    migrate_postgres,
    migration_lock,
)
from agentflow_server.stores.rows import now

MINIMUM_VERSION = 14

# A process that was paused within a transaction must not hold its locks for ever.
_CONFIGURE = f"""
    SET search_path = {SCHEMA}, public;
    SET statement_timeout = '30s';
    SET idle_in_transaction_session_timeout = '10s'"""

_WAIT_FOR_CONNECTION = 5.0
_MAX_WAITING = 4096
# The pool doubles its pauses between attempts until it gives up; the next request then begins
# anew. So short, that a server that is back is found within seconds, however long it was away.
_RECONNECT = 3.0


async def open_connections(url: str, *, size: int, upgrades: bool) -> PostgresConnections:
    """Migrate the database, then open the pool. What exists already is left as it is unless this
    `upgrades`: servers may use it.

    Raises ConfigError, in one line: no such server, not allowed, too old, or not ours.
    """
    target = add_defaults(url)
    with _naming_the_place(target):
        async with await AsyncConnection.connect(target, autocommit=True) as connection:
            await _require_suitable(connection)
            await migrate_postgres(connection, load_migrations("postgres"), upgrades=upgrades)
            await connection.execute(f"SET search_path = {SCHEMA}")
            await prune(connection, now(), limit=None)
    pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
        target,
        kwargs={"autocommit": True},
        min_size=min(2, size),
        max_size=size,
        open=False,
        name="agentflow",
        configure=_configure,
        timeout=_WAIT_FOR_CONNECTION,
        max_waiting=_MAX_WAITING,
        reconnect_timeout=_RECONNECT,
    )
    await pool.open()
    return PostgresConnections(pool)


async def examine(url: str) -> Condition:
    """Changes nothing. Raises ConfigError, in one line."""
    target = add_defaults(url)
    migrations = load_migrations("postgres")
    with _naming_the_place(target):
        async with await AsyncConnection.connect(target, autocommit=True) as connection:
            await _require_suitable(connection)
            missing = await find_missing(connection, migrations)
            found = await connection.execute("SELECT pg_database_size(current_database())")
            (size,) = await found.fetchone() or (0,)
    newest = migrations[-1].version
    return Condition(newest - len(missing), newest, size)


@asynccontextmanager
async def migrating(url: str) -> AsyncIterator[Connection]:
    """A connection of its own in our schema, which no other server changes meanwhile.

    Raises ConfigError, in one line.
    """
    target = add_defaults(url)
    with _naming_the_place(target):
        async with (
            await AsyncConnection.connect(target, autocommit=True) as connection,
            migration_lock(connection),
        ):
            await connection.execute(f"SET search_path = {SCHEMA}")
            yield connection


@contextmanager
def _naming_the_place(target: str) -> Iterator[None]:
    """Raises ConfigError for whatever is wrong with the database."""
    place = _name(target)
    try:
        yield
    except psycopg.Error as exc:
        raise ConfigError(f"{place}: the database cannot be used: {one_line(exc)}") from exc
    except ConfigError as exc:
        raise type(exc)(f"{place}: {exc}") from exc


async def _configure(connection: Connection) -> None:
    await connection.execute(_CONFIGURE)


def _name(target: str) -> str:
    """The database without its secrets."""
    parts = conninfo.conninfo_to_dict(target)
    host, port = parts.get("host", "localhost"), parts.get("port", 5432)
    return f"postgresql://{host}:{port}/{parts.get('dbname', '')}"


async def _require_suitable(connection: Connection) -> None:
    version = connection.info.server_version // 10_000
    if version < MINIMUM_VERSION:
        raise ConfigError(f"PostgreSQL {MINIMUM_VERSION} or newer is needed, found {version}")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigError(f"the database must have the encoding UTF8, found {encoding}")
