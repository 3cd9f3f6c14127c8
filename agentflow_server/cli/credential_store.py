"""The database of keys and revocations, opened for one command beside a server that may run."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import anyio
import typer

from agentflow_server.cli.failures import explained
from agentflow_server.cli.logs import escape, set_up_logs
from agentflow_server.config import read_config
from agentflow_server.interfaces import CredentialStore
from agentflow_server.stores.sqlite import SqliteStore

T = TypeVar("T")


def use_credentials(
    config: Path | None, database: str | None, use: Callable[[CredentialStore], Awaitable[T]]
) -> T:
    """What `use` returns. Whatever is wrong ends the process with one line each."""
    set_up_logs("error")
    with explained():
        path = read_config(config, overrides={"database": database}).database_path

        async def open_and_use() -> T:
            async with SqliteStore(path, exclusive=False) as store:
                return await use(store)

        return anyio.run(open_and_use)


def tell(*lines: str) -> None:
    """To stderr: stdout is for what a script takes on."""
    for line in lines:
        typer.echo(escape(line), err=True)
