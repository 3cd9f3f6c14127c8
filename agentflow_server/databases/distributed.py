"""A PostgreSQL database: any number of processes share it."""

from agentflow_server.config import RunsConfig
from agentflow_server.databases.database import Database
from agentflow_server.engines.embedded import Worker
from agentflow_server.engines.postgres import PostgresEngine
from agentflow_server.events.postgres import PostgresEventBus
from agentflow_server.interfaces import Engine, EventBus
from agentflow_server.stores.migrate import Condition
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.postgres_audit import PostgresAuditTable
from agentflow_server.stores.postgres_opening import examine
from agentflow_server.stores.postgres_tickets import PostgresTickets
from agentflow_server.stores.rules import Observe


class DistributedDatabase(Database):
    def __init__(
        self, url: str, runs: RunsConfig, *, observe: Observe | None, upgrades: bool
    ) -> None:
        self._store = store = PostgresStore(
            url, runs_per_owner=runs.per_principal, observe=observe, upgrades=upgrades
        )
        self.store = self.credentials = self.operators = self.webhooks = self.checkpoints = store
        self.users = self.grants = store
        self.audit_table = PostgresAuditTable(store)
        self.tickets = PostgresTickets(store)
        self._url = url
        self._runs = runs

    async def examine(self) -> Condition:
        return await examine(self._url)

    def make_bus(self) -> EventBus:
        return PostgresEventBus(self._url)

    def make_engine(self, worker: Worker, bus: EventBus, *, executes: bool) -> Engine:
        return PostgresEngine(
            self._store,
            worker,
            database=self._store,
            signals=bus,
            grace=self._runs.shutdown_grace,
            concurrency=self._runs.concurrency if executes else 0,
            takes_turns=self._runs.takes_turns,
            lease=self._runs.lease,
        )
