"""The server's database, opened for one command beside a server that may run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentflow_server.config import Config
from agentflow_server.databases import Database, choose_database


def choose_for_command(config: Config) -> Database:
    """Not opened yet. What an older version has made stays as it is: servers may use it."""
    return choose_database(config, exclusive=False, upgrades=False)


@asynccontextmanager
async def open_database(config: Config) -> AsyncIterator[Database]:
    """Raises ConfigError."""
    database = choose_for_command(config)
    async with database.store:
        yield database
