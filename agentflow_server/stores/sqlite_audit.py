"""The table of the audit log: SQL for SQLite."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from agentflow_server.errors import StoreUnavailable
from agentflow_server.stores.sqlite import SqliteStore

_APPEND = "INSERT INTO audit_log (line) VALUES (?)"
_NEWEST_FIRST = "SELECT line FROM audit_log ORDER BY position DESC"
_AFTER = "SELECT position, line FROM audit_log WHERE position > ? ORDER BY position LIMIT ?"
_BEFORE = """
    SELECT position, line FROM audit_log
    WHERE ? IS NULL OR position < ? ORDER BY position DESC LIMIT ?"""
_HEAD = "SELECT line FROM audit_head"
_SET_HEAD = "INSERT OR REPLACE INTO audit_head (only, line) VALUES (1, ?)"


class Make(Protocol):
    def __call__(self, newest_first: Iterable[str], head: str | None, /) -> Sequence[str]: ...


class SqliteAuditTable:
    """Lines in the order they were appended, in the store's own file."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def extend(self, make: Make) -> None:
        """Append what `make` returns when it is given the present lines, the newest first, and the
        last one that was appended. Raises StoreUnavailable."""

        def append(connection: sqlite3.Connection) -> None:
            lines = make(_newest_first(connection), _find_head(connection))
            connection.executemany(_APPEND, [(line,) for line in lines])
            if lines:
                connection.execute(_SET_HEAD, (lines[-1],))

        try:
            await self._store.write(append)
        except sqlite3.Error as exc:
            raise StoreUnavailable("The audit log cannot be written") from exc

    async def read_head(self) -> str | None:
        """The last line that was appended, also when it is not there any more."""
        return await self._store.read(_find_head)

    async def read_after(self, position: int, limit: int) -> Sequence[tuple[int, str]]:
        """(position, line), the oldest first."""
        return await self._store.read(
            lambda connection: connection.execute(_AFTER, (position, limit)).fetchall()
        )

    async def read_before(self, position: int | None, limit: int) -> Sequence[tuple[int, str]]:
        """(position, line), the newest first; all of them with `position=None`."""
        return await self._store.read(
            lambda connection: connection.execute(_BEFORE, (position, position, limit)).fetchall()
        )


def _find_head(connection: sqlite3.Connection) -> str | None:
    row = connection.execute(_HEAD).fetchone()
    return None if row is None else str(row[0])


def _newest_first(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(_NEWEST_FIRST)
    try:
        yield from (line for (line,) in rows)
    finally:
        rows.close()
