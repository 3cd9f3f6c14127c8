"""What adapters need of the server's database, to keep the states of agents in it."""

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from psycopg import AsyncConnection

T = TypeVar("T")


class SqliteDatabase(Protocol):
    """One file, used by this process alone."""

    async def write(self, operation: Callable[[sqlite3.Connection], T], /) -> T:
        """Run it in the writer thread, inside its transaction; durable when this returns."""

    async def read(self, operation: Callable[[sqlite3.Connection], T], /) -> T:
        """Run it in a reader thread."""


@runtime_checkable
class PostgresDatabase(Protocol):
    """Shared by any number of processes. Our schema is the first of the search path."""

    async def write(self, operation: "Callable[[AsyncConnection[Any]], Awaitable[T]]", /) -> T:
        """Await it on a connection that commits each statement; it goes on when the caller is
        cancelled."""

    async def read(self, operation: "Callable[[AsyncConnection[Any]], Awaitable[T]]", /) -> T:
        """The same, for what only looks."""

    def migrating(self) -> "AbstractAsyncContextManager[AsyncConnection[Any]]":
        """A connection for changes of the schema, which no other process changes meanwhile."""


Database = SqliteDatabase | PostgresDatabase
