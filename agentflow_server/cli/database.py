"""The server's database, opened for one command beside a server that may run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agentflow_server.audit.table import AuditTable
from agentflow_server.config import Config
from agentflow_server.interfaces import CredentialStore
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.stores.sqlite_audit import SqliteAuditTable


@dataclass(frozen=True, slots=True)
class Database:
    """What commands need of it."""

    credentials: CredentialStore
    audit: AuditTable


@asynccontextmanager
async def open_database(config: Config) -> AsyncIterator[Database]:
    """Raises ConfigError."""
    async with SqliteStore(config.database_path, exclusive=False) as store:
        yield Database(store, SqliteAuditTable(store))
