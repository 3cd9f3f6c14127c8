"""Whether somebody else writes into the file of a store: operators do, with commands."""

import sqlite3

from agentflow_server.errors import StoreUnavailable
from agentflow_server.stores.sqlite import SqliteStore


class SqliteNeighbours:
    """Compares what SQLite counts on the store's own writing connection: commits of others."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._seen: int | None = None

    async def have_written(self) -> bool:
        """Since the last call; False at the first. Raises StoreUnavailable."""
        try:
            (version,) = await self._store.write(
                lambda connection: connection.execute("PRAGMA data_version").fetchone()
            )
        except sqlite3.Error as exc:
            raise StoreUnavailable("The database cannot be used right now") from exc
        before, self._seen = self._seen, version
        return before not in (None, version)
