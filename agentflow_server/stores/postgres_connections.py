"""The connections to a PostgreSQL database, and what is done with them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from agentflow_server.errors import InvalidRequest, StoreUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
Connection = AsyncConnection[Any]
Operation = Callable[[Connection], Awaitable[T]]
"""Works on a connection that commits each statement, unless it asks for a `transaction`."""

_PATIENCE = 40.0
"""Seconds for an operation, waiting for a connection included."""


class PostgresConnections:
    """A pool, whose connections are replaced when the server ends them.

    Operations go on when their caller is cancelled, as in every store of ours: a half-cancelled
    one would cost the connection. `close` waits for them.
    """

    def __init__(self, pool: AsyncConnectionPool[Connection]) -> None:
        self._pool = pool
        self._tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._pool.close()

    async def run(self, operation: Operation[T]) -> T:
        """What it raises passes through, but for the database's own errors.

        Raises StoreUnavailable, and InvalidRequest for a text that PostgreSQL cannot hold.
        """
        task = asyncio.create_task(self._run(operation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _run(self, operation: Operation[T]) -> T:
        try:
            async with asyncio.timeout(_PATIENCE), self._living_connection() as connection:
                return await operation(connection)
        except psycopg.DataError as exc:
            raise InvalidRequest("A text has a character that cannot be stored") from exc
        except (psycopg.Error, TimeoutError) as exc:
            raise _unavailable(exc) from exc

    @asynccontextmanager
    async def _living_connection(self) -> AsyncIterator[Connection]:
        """Not one that the server ended while it was idle: nobody has to fail to find that out."""
        while True:
            async with self._pool.connection() as connection:
                if _is_alive(connection):
                    yield connection
                    return
                await connection.close()


def _is_alive(connection: Connection) -> bool:
    """Whether the server has not said goodbye: one or two system calls, no round trip."""
    try:
        for _ in range(2):  # the farewell, then the end
            connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return not connection.closed


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncIterator[None]:
    """All or nothing. Statements are sent without waiting until one's result is asked for."""
    async with connection.pipeline(), connection.transaction():
        yield


def _unavailable(exc: Exception) -> StoreUnavailable:
    log.error("the database refused an operation: %s", one_line(exc))
    return StoreUnavailable("The database cannot be used right now")


def one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__
