"""The table of the audit log: SQL for PostgreSQL."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.postgres_connections import Connection, transaction

# Others may read meanwhile.
_LOCK = "LOCK TABLE audit_log IN EXCLUSIVE MODE"
_APPEND = """
    INSERT INTO audit_log (position, line)
    SELECT last + number, line
    FROM (SELECT coalesce(max(position), 0) AS last FROM audit_log) AS present,
        unnest(%s::text[]) WITH ORDINALITY AS added (line, number)"""
_NEWEST = "SELECT line FROM audit_log ORDER BY position DESC LIMIT %s"
_AFTER = "SELECT position, line FROM audit_log WHERE position > %s ORDER BY position LIMIT %s"
_BEFORE = """
    SELECT position, line FROM audit_log
    WHERE %(before)s::bigint IS NULL OR position < %(before)s
    ORDER BY position DESC LIMIT %(limit)s"""

_HEAD = "SELECT line FROM audit_head"
_SET_HEAD = """
    INSERT INTO audit_head (line) VALUES (%s)
    ON CONFLICT (position) DO UPDATE SET line = excluded.line"""

_LOOKED_AT = 16


class Make(Protocol):
    def __call__(self, newest_first: Iterable[str], head: str | None, /) -> Sequence[str]: ...


class PostgresAuditTable:
    """Lines in the order they were appended by any of the servers, in the store's own database."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def extend(self, make: Make) -> None:
        """Append what `make` returns when it is given the present lines, the newest first, and the
        last one that was appended.

        It is asked again, with more of the lines, when it looked at all it was given.
        """

        async def append(connection: Connection) -> None:
            async with transaction(connection):
                await connection.execute(_LOCK)
                lines = await _ask(connection, make)
                await connection.execute(_APPEND, (lines,))
                if lines:
                    await connection.execute(_SET_HEAD, (lines[-1],))

        await self._store.write(append)

    async def read_head(self) -> str | None:
        """The last line that was appended, also when it is not there any more."""
        return await self._store.read(_find_head)

    async def read_after(self, position: int, limit: int) -> Sequence[tuple[int, str]]:
        """(position, line), the oldest first."""

        async def read(connection: Connection) -> Sequence[tuple[int, str]]:
            return await (await connection.execute(_AFTER, (position, limit))).fetchall()

        return await self._store.read(read)

    async def read_before(self, position: int | None, limit: int) -> Sequence[tuple[int, str]]:
        """(position, line), the newest first; all of them with `position=None`."""
        values = {"before": position, "limit": limit}

        async def read(connection: Connection) -> Sequence[tuple[int, str]]:
            return await (await connection.execute(_BEFORE, values)).fetchall()

        return await self._store.read(read)


async def _find_head(connection: Connection) -> str | None:
    row = await (await connection.execute(_HEAD)).fetchone()
    return None if row is None else str(row[0])


async def _ask(connection: Connection, make: Make) -> list[str]:
    head = await _find_head(connection)
    limit = _LOOKED_AT
    while True:
        rows = await (await connection.execute(_NEWEST, (limit,))).fetchall()
        lines = _Lines([line for (line,) in rows])
        made = make(lines, head)
        if len(rows) < limit or not lines.exhausted:
            return list(made)
        limit *= 16


class _Lines:
    """Remembers whether somebody wanted more of them than there are."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self.exhausted = False

    def __iter__(self) -> Iterator[str]:
        yield from self._lines
        self.exhausted = True
