"""The server's database, opened for one command beside a server that may run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentflow_server.config import Config
from agentflow_server.databases import Database, choose_database


@asynccontextmanager
async def open_database(config: Config) -> AsyncIterator[Database]:
    """Raises ConfigError."""
    database = choose_database(config, exclusive=False)
    async with database.store:
        yield database
