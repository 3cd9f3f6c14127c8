"""Whether somebody else writes into the file of a store: operators do, with commands."""

from agentflow_server.stores.sqlite import SqliteStore


class SqliteNeighbours:
    """Compares what SQLite counts on the store's own writing connection: commits of others."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._seen: int | None = None

    async def have_written(self) -> bool:
        """Since the last call; False at the first. Raises StoreUnavailable."""
        (version,) = await self._store.write(
            lambda connection: connection.execute("PRAGMA data_version").fetchone()
        )
        before, self._seen = self._seen, version
        return before not in (None, version)
