"""The table of the audit log: SQL for PostgreSQL."""

from collections.abc import Callable, Iterable, Iterator, Sequence

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

_LOOKED_AT = 16

Make = Callable[[Iterable[str]], Sequence[str]]


class PostgresAuditTable:
    """Lines in the order they were appended by any of the servers, in the store's own database."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def extend(self, make: Make) -> None:
        """Append what `make` returns when it is given the present lines, the newest first.

        It is asked again, with more of them, when it looked at all it was given.
        """

        async def append(connection: Connection) -> None:
            async with transaction(connection):
                await connection.execute(_LOCK)
                await connection.execute(_APPEND, (await _ask(connection, make),))

        await self._store.write(append)

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


async def _ask(connection: Connection, make: Make) -> list[str]:
    limit = _LOOKED_AT
    while True:
        rows = await (await connection.execute(_NEWEST, (limit,))).fetchall()
        lines = _Lines([line for (line,) in rows])
        made = make(lines)
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
