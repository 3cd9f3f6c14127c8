"""The table of the audit log: SQL for SQLite."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence

from agentflow_server.stores.sqlite import SqliteStore

_APPEND = "INSERT INTO audit_log (line) VALUES (?)"
_NEWEST_FIRST = "SELECT line FROM audit_log ORDER BY position DESC"
_AFTER = "SELECT position, line FROM audit_log WHERE position > ? ORDER BY position LIMIT ?"
_BEFORE = """
    SELECT position, line FROM audit_log
    WHERE ?1 IS NULL OR position < ?1 ORDER BY position DESC LIMIT ?2"""


class SqliteAuditTable:
    """Lines in the order they were appended, in the store's own file."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def extend(self, make: Callable[[Iterable[str]], Sequence[str]]) -> None:
        """Append what `make` returns when it is given the present lines, the newest first."""

        def append(connection: sqlite3.Connection) -> None:
            lines = make(_newest_first(connection))
            connection.executemany(_APPEND, [(line,) for line in lines])

        await self._store.write(append)

    async def read_after(self, position: int, limit: int) -> Sequence[tuple[int, str]]:
        """(position, line), the oldest first."""
        return await self._store.read(
            lambda connection: connection.execute(_AFTER, (position, limit)).fetchall()
        )

    async def read_before(self, position: int | None, limit: int) -> Sequence[tuple[int, str]]:
        """(position, line), the newest first; all of them with `position=None`."""
        return await self._store.read(
            lambda connection: connection.execute(_BEFORE, (position, limit)).fetchall()
        )


def _newest_first(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(_NEWEST_FIRST)
    try:
        yield from (line for (line,) in rows)
    finally:
        rows.close()
