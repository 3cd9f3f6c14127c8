"""A SQLite file: everything happens in one process."""

from pathlib import Path

from anyio import to_thread

from agentflow_server.config import RunsConfig
from agentflow_server.databases.database import Database
from agentflow_server.engines.embedded import EmbeddedEngine, Worker
from agentflow_server.errors import ConfigError
from agentflow_server.events.local import LocalEventBus
from agentflow_server.interfaces import Engine, EventBus
from agentflow_server.stores.migrate import Condition
from agentflow_server.stores.rules import Observe
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.stores.sqlite_audit import SqliteAuditTable
from agentflow_server.stores.sqlite_file import examine
from agentflow_server.stores.sqlite_neighbours import SqliteNeighbours
from agentflow_server.web.tickets import MemoryTickets


class EmbeddedDatabase(Database):
    def __init__(
        self,
        path: Path,
        runs: RunsConfig,
        *,
        observe: Observe | None,
        exclusive: bool,
        upgrades: bool,
    ) -> None:
        self._store = store = SqliteStore(
            path,
            exclusive=exclusive,
            upgrades=upgrades,
            runs_per_owner=runs.per_principal,
            observe=observe,
        )
        self.store = self.credentials = self.operators = self.webhooks = self.checkpoints = store
        self.users = self.grants = store
        self.audit_table = SqliteAuditTable(store)
        self.tickets = MemoryTickets()
        self._path = path
        self._runs = runs

    async def examine(self) -> Condition:
        return await to_thread.run_sync(examine, self._path)

    def make_bus(self) -> EventBus:
        return LocalEventBus()

    def make_engine(self, worker: Worker, bus: EventBus, *, executes: bool) -> Engine:
        if not executes:
            raise ConfigError("database: runs can be executed elsewhere with PostgreSQL only")
        return EmbeddedEngine(
            self.store,
            worker,
            grace=self._runs.shutdown_grace,
            concurrency=self._runs.concurrency,
            takes_turns=self._runs.takes_turns,
            neighbours=SqliteNeighbours(self._store),
            wake_readers=bus.wake_all,
        )
