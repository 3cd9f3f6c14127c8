"""The parts of a server that depend on where its data is."""

from abc import ABC, abstractmethod

from agentflow_server.adapters.databases import Database as Checkpoints
from agentflow_server.audit.table import AuditTable
from agentflow_server.engines.embedded import Worker
from agentflow_server.interfaces import (
    CredentialStore,
    Engine,
    EventBus,
    GrantStore,
    OperatorStore,
    Store,
    UserStore,
    WebhookStore,
)
from agentflow_server.stores.migrate import Condition
from agentflow_server.web.tickets import TicketStore


class Database(ABC):
    """Opened by opening its store; the rest works while that is open."""

    store: Store
    credentials: CredentialStore
    operators: OperatorStore
    webhooks: WebhookStore
    users: UserStore
    grants: GrantStore
    checkpoints: Checkpoints
    """The store as well, all of them."""
    audit_table: AuditTable
    tickets: TicketStore

    @abstractmethod
    async def examine(self) -> Condition:
        """Changes nothing; it need not be open. Raises ConfigError."""

    @abstractmethod
    def make_bus(self) -> EventBus:
        """Raises nothing: it connects when it is opened."""

    @abstractmethod
    def make_engine(self, worker: Worker, bus: EventBus, *, executes: bool) -> Engine:
        """`executes=False`: leave every run to other processes. Raises ConfigError."""
